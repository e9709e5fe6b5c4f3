"""The bill of materials, from a real Debian, a real environment and the broker's real jars."""

import json
import sysconfig
from importlib.metadata import version
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from music_streaming.board.sbom import (
    Package,
    bill,
    debian_packages,
    is_of,
    java_archives,
    python_distributions,
)
from music_streaming.testing.broker import jars


def named(packages, name: str) -> Package:
    return next(package for package in packages if package.name == name)


def test_packages_of_debian_with_their_licences():
    found = list(debian_packages(Path("/")))
    assert len(found) > 50
    assert named(found, "dpkg").version
    assert "GPL-2" in " ".join(named(found, "dpkg").licenses)
    without = [package.name for package in found if not package.licenses]
    assert len(without) < len(found) / 5, without


def test_distributions_of_python_with_their_licences():
    found = list(python_distributions([Path(sysconfig.get_path("purelib"))]))
    assert named(found, "kafka-python").version == version("kafka-python")
    without = [package.name for package in found if not package.licenses]
    assert len(without) < len(found) / 10, without


def test_archives_of_java_with_their_coordinates():
    found = list(java_archives(jars()))
    clients = named(found, "kafka-clients")
    assert clients.version.startswith("4.")
    log4j = named(found, "log4j-core")
    assert (log4j.group, log4j.licenses) == ("org.apache.logging.log4j", ("Apache-2.0",))
    without = [package.name for package in found if not package.licenses]
    assert len(without) < len(found) / 5, without


def test_the_bill_is_valid_and_holds_every_package():
    packages = {
        "board": list(debian_packages(Path("/"))),
        "music-streaming": list(python_distributions([Path(sysconfig.get_path("purelib"))])),
        "kafka": list(java_archives(jars())),
    }
    text = bill(packages, {"kafka": "sha256:1"})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    owners = {owner["name"]: owner for owner in json.loads(text)["components"]}
    assert owners["kafka"]["version"] == "sha256:1"
    assert {name: len(owner["components"]) for name, owner in owners.items()} == {
        name: len(found) for name, found in packages.items()
    }


def test_a_bill_is_kept_until_image_or_app_change_or_it_is_cut_short(tmp_path):
    app = sorted(python_distributions([Path(sysconfig.get_path("purelib"))]))
    versions = {"kafka": "sha256:1", "music-streaming": "1"}
    path = tmp_path / "sbom.cdx.json"
    assert not is_of(path, versions, app)
    path.write_text(bill({"music-streaming": app, "kafka": []}, versions), encoding="utf-8")
    assert is_of(path, versions, app)
    assert not is_of(path, versions | {"kafka": "sha256:2"}, app)
    assert not is_of(path, versions, app[1:])
    path.write_bytes(path.read_bytes()[:5000])
    assert not is_of(path, versions, app)
    path.write_bytes(b"")
    assert not is_of(path, versions, app)
