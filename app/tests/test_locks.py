"""Whatever is fetched for a board, an image or the tests is pinned to one version and to the hash of its content."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[2]
LOCKS = sorted(
    path.relative_to(PROJECT)
    for pattern in ("*.lock", "app/*.lock", "files/images/*/*.lock")
    for path in PROJECT.glob(pattern)
)
IVY = sorted(path.relative_to(PROJECT) for path in PROJECT.glob("files/images/*/ivy.xml"))


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_python_is_locked_with_hashes(lock):
    text = (PROJECT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        assert re.fullmatch(r"==[^*]+", str(Requirement(requirement).specifier)), line
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", found.strip()) for found in hashes), line


@pytest.mark.parametrize("ivy", IVY, ids=str)
def test_java_is_locked_with_hashes(ivy):
    """The image is not built when another jar comes, one is missing, or its content is another."""
    recipe = (PROJECT / ivy).with_name("Dockerfile").read_text(encoding="utf-8")
    assert "sha256sum --quiet --check /jars.sha256" in recipe
    lines = (PROJECT / ivy).with_name("jars.sha256").read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(re.fullmatch(r"[0-9a-f]{64}  [^/ ]+\.jar", line) for line in lines)
