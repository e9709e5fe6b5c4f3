"""The docs are true: generated parts are fresh; every command, unit, file and table that they name exists."""

from __future__ import annotations

import configparser
import re

import pytest
import yaml

from docs import DISK, DOCTOR, PROJECT, ROLES, SETTINGS, WIRING, options, rendered

CASES = "molecule/cases.md"
BARE = "molecule/tests/test_bare.py"
STORIES = [f"molecule/{name}.yml" for name in ("default/settings", "edited/settings", "edited/proxy")]
TOLD = ["molecule/tests/test_used.py", "molecule/tests/test_proxy.py"]
PAGES = [
    "docs/architecture.md",
    "docs/backup.md",
    "docs/contract.md",
    "docs/disk.md",
    "docs/doctor.md",
    "docs/players.md",
    "docs/reliability.md",
    "docs/settings.md",
    "docs/update.md",
]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", CASES, *PAGES]


def test_stories_reach_the_board_as_the_product_does():
    product = configparser.ConfigParser()
    product.read(PROJECT / "ansible.cfg", encoding="utf-8")
    stories = yaml.safe_load((PROJECT / ".config/molecule/config.yml").read_text(encoding="utf-8"))
    stories = stories["ansible"]["cfg"]
    for name in ("interpreter_python", "remote_tmp"):
        assert stories["defaults"][name] == product["defaults"][name]
    # Ansible's own ssh_args compress: an image takes four times as long.
    given = {name: str(value) for name, value in stories["ssh_connection"].items()}
    assert given == dict(product["ssh_connection"])


@pytest.mark.parametrize("page", [SETTINGS, DISK, DOCTOR], ids=lambda page: page.name)
def test_generated_parts_are_fresh(page):
    assert page.read_text(encoding="utf-8") == rendered(page), "run `make docs`"


def test_every_option_says_what_it_is():
    assert [
        name for role in ROLES for name, option in options(role).items() if not option.get("description")
    ] == []


def test_every_setting_is_in_a_story_at_another_value():
    """In the settings of a story, refused on a bare board, told to a board in use, or in a simulated board's inventory."""
    default = yaml.safe_load((PROJECT / "playbooks/group_vars/all.yml").read_text(encoding="utf-8"))
    documented = {name: default[name] for name in WIRING}
    for role in ROLES:
        documented |= {name: option.get("default") for name, option in options(role).items()}
    tried = set(
        re.findall(r"^ +([a-z_]+):", (PROJECT / "molecule/board").read_text(encoding="utf-8"), re.MULTILINE)
    )
    tried |= set(
        re.findall(r'^    \("([a-z_]+)=', (PROJECT / BARE).read_text(encoding="utf-8"), re.MULTILINE)
    )
    for told in TOLD:
        tried |= set(re.findall(r'"-e", f?"([a-z_]+)=', (PROJECT / told).read_text(encoding="utf-8")))
    for story in STORIES:
        given = yaml.safe_load((PROJECT / story).read_text(encoding="utf-8"))
        assert [name for name in given if name not in documented] == [], story
        tried |= {name for name, value in given.items() if value != documented[name]}
    assert sorted(set(documented) - tried) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_commands_verbs_and_files_exist(document):
    text = (PROJECT / document).read_text(encoding="utf-8")
    verbs = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for verb in re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE):
        assert verb in verbs, f"{document}: make {verb}"
    for path in re.findall(
        r"`((?:app|files|roles|playbooks|inventory|molecule|bench|docs)/[^` :]*)[^`]*`", text
    ):
        if path not in ("inventory/group_vars/boards.yml",):
            assert (PROJECT / path).exists(), f"{document}: {path}"
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((PROJECT / document).parent / path).exists(), f"{document}: {path}"


def test_named_units_exist():
    text = "".join((PROJECT / page).read_text(encoding="utf-8") for page in ("README.md", *PAGES))
    units = set(re.findall(r"music-([a-z-]+)", text))
    known = {
        "kafka",
        "spark-master",
        "spark-worker",
        "postgres",
        "superset",
        "watch",
        "health",
        "producer",
        "scrobble",
        "forward",
        "metrics",
        "streaming",
        "backup",
        "images-",  # the archive for the next board
        "live",  # the home page
    }
    assert units <= known, units - known


def test_cases_name_tests_that_exist():
    text = (PROJECT / CASES).read_text(encoding="utf-8")
    named = re.findall(r"`((?:app|molecule)/tests/[a-z_/]+\.py)::([a-z0-9_]+)`", text)
    assert len(named) > 40
    for file, name in named:
        assert f"def {name}(" in (PROJECT / file).read_text(encoding="utf-8"), f"{file}::{name}"
    ids = re.findall(r"^\| ([PKSDVG]\d\d) \|", text, flags=re.MULTILINE)
    assert len(ids) == len(set(ids)) == 45
