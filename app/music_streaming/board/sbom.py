"""All packages of a board with their licences, as a software bill of materials (SBOM) in CycloneDX 1.6.

Read from what runs: the root of each container, the app's own environment, and the board's Debian. Listed are
packages of Debian, Python distributions and Java archives; what those carry inside themselves, such as the
scripts of Superset's pages, is theirs to list. Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from music_streaming.error import MusicError
from music_streaming.settings import Settings

APP, BOARD = "music-streaming", "board"

_STATUS = re.compile(r"^(Package|Status|Version): (.+)$", re.MULTILINE)
_COPYRIGHT = re.compile(r"^License:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_COMMON_LICENSE = re.compile(r"/usr/share/common-licenses/([\w.+-]*\w)")
_JAR = re.compile(r"(?P<name>.+?)-(?P<version>\d.*)\.jar")
_POM_LICENSES = re.compile(r"<license>.*?<name>\s*(.*?)\s*</name>", re.DOTALL)
_MANIFEST = "META-INF/MANIFEST.MF"
_LICENSE_FILE = re.compile(r"(META-INF/)?LICENSE(\.txt|\.md)?")
_CLASSIFIER = "License :: OSI Approved :: "
# How the text of a licence begins, for archives that carry nothing else.
_TEXTS = {
    "Apache License": "Apache-2.0",
    "Permission is hereby granted, free of charge": "MIT",
    "Redistribution and use in source and binary forms": "BSD",
    "Eclipse Public License": "EPL",
}


@dataclass(frozen=True, order=True)
class Package:
    """One package; licences in the words of the package itself, none where it has none."""

    type: str
    group: str
    name: str
    version: str
    licenses: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """What runs in a container: its name, the image's id, and where its files are seen from outside."""

    name: str
    id: str
    root: Path


def running_images() -> list[Image]:
    """The images whose containers run on this board; MusicError where this user may not ask Docker."""
    form = "{{.Config.Image}} {{.Image}} {{.State.Pid}}"
    ids = _docker("ps", "--quiet", "--filter", "label=music.revision")
    images = {}
    for line in _docker("inspect", "--format", form, *ids) if ids else []:
        tag, identity, pid = line.split()
        name = tag.partition(":")[0].rpartition("/")[2]
        images[name] = Image(name, identity, Path("/proc", pid, "root"))
    return list(images.values())


def _docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MusicError.of(
            "SBOM",
            found=" ".join(done.stderr.split()),
            wanted="a Docker daemon that answers root",
            remedy="sudo musicctl sbom; systemctl status docker",
        )
    return done.stdout.split("\n")[:-1]


def debian_packages(root: Path) -> Iterator[Package]:
    """The packages that dpkg has installed below `root`."""
    # dpkg-query itself would follow the root of a process to where it leads from here: the board's own.
    for paragraph in _read(root / "var/lib/dpkg/status").split("\n\n"):
        said = dict(_STATUS.findall(paragraph))
        if said.get("Status", "").endswith(" installed"):
            text = _read(root / "usr/share/doc" / said["Package"] / "copyright")
            # Older files of this kind are prose, which names the texts that every Debian has.
            licenses = _COPYRIGHT.findall(text) or _COMMON_LICENSE.findall(text)
            yield Package("deb", "debian", said["Package"], said["Version"], tuple(dict.fromkeys(licenses)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def python_distributions(folders: Iterable[Path]) -> Iterator[Package]:
    """The distributions in these site-packages."""
    for found in distributions(path=[str(folder) for folder in folders]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        yield Package("pypi", "", name, found.version, _licenses_of(found))


def _licenses_of(found: Distribution) -> tuple[str, ...]:
    said = found.metadata
    if "License-Expression" in said:
        return (said["License-Expression"],)
    classifiers = [
        text.removeprefix(_CLASSIFIER)
        for text in said.get_all("Classifier") or []
        if text.startswith(_CLASSIFIER)
    ]
    # Some put the whole text of their licence into the field.
    text = said["License"].strip() if "License" in said else ""
    return tuple(classifiers) or ((text,) if 0 < len(text) < 80 else ())


def java_archives(folder: Path) -> Iterator[Package]:
    """The jars anywhere below `folder`, with their Maven coordinates where they carry them."""
    for path in sorted(folder.rglob("*.jar")):
        named = _JAR.fullmatch(path.name)
        name, number = (named["name"], named["version"]) if named else (path.stem, "")
        group, licenses = "", []
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names == [_MANIFEST]:  # a class path of others
                continue
            # One that has others inside carries their coordinates, too.
            own = next((entry for entry in names if entry.endswith(f"/{name}/pom.properties")), None)
            if own:
                group = own.split("/")[-3]
                pom = own.replace("pom.properties", "pom.xml")
                licenses = _POM_LICENSES.findall(_entry(archive, pom)) if pom in names else []
            if not licenses and _MANIFEST in names:
                # A line of a manifest goes on behind a line break and a blank.
                manifest = _entry(archive, _MANIFEST).replace("\r\n", "\n").replace("\n ", "")
                licenses = re.findall(r"^Bundle-License: *(.+)$", manifest, re.MULTILINE)
            if not licenses:
                texts = [_entry(archive, entry) for entry in names if _LICENSE_FILE.fullmatch(entry)]
                licenses = [text for sign, text in _TEXTS.items() if any(sign in whole for whole in texts)]
        yield Package("maven", group, name, number, tuple(licenses))


def _entry(archive: zipfile.ZipFile, name: str) -> str:
    return archive.read(name).decode("utf-8", errors="replace")


def packages_of_app() -> list[Package]:
    """The distributions that this very process can import."""
    return sorted(python_distributions([Path(folder) for folder in sys.path if "site-packages" in folder]))


def packages_of_image(image: Image) -> list[Package]:
    """What Debian, Python and Java know in an image."""
    opt = image.root / "opt"
    found = {
        *debian_packages(image.root),
        *python_distributions(opt.glob("*/lib/python3*/site-packages")),
        *java_archives(opt),
    }
    return sorted(found)


def _component(owner: str, package: Package) -> Component:
    read = LicenseFactory().make_from_string
    # An expression stands alone or not at all.
    several = [DisjunctiveLicense(name=text) for text in package.licenses]
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=f"{owner}/{package.type}/{package.group}/{package.name}@{package.version}",
        group=package.group or None,
        name=package.name,
        version=package.version or None,
        purl=PackageURL(package.type, package.group or None, package.name, package.version or None),
        licenses=[read(package.licenses[0])] if len(package.licenses) == 1 else several,
    )


def bill(packages: Mapping[str, Iterable[Package]], versions: Mapping[str, str]) -> str:
    """The bill of materials as JSON: a component for each owner, and in it its packages."""
    kinds = {APP: ComponentType.APPLICATION, BOARD: ComponentType.OPERATING_SYSTEM}
    owners = [
        Component(
            type=kinds.get(owner, ComponentType.CONTAINER),
            bom_ref=owner,
            name=owner,
            version=versions.get(owner),
            components=[_component(owner, package) for package in owned],
        )
        for owner, owned in packages.items()
    ]
    return JsonV1Dot6(Bom(components=owners)).output_as_string(indent=1)


def is_of(path: Path, versions: dict[str, str], app: list[Package]) -> bool:
    """Whether the file is a bill of these images (name to id) and this app; one cut short is not."""
    try:
        present = {found["name"]: found for found in json.loads(path.read_bytes())["components"]}
        kept = {(item["name"], item["version"]) for item in present[APP]["components"]}
    except (FileNotFoundError, ValueError, KeyError):
        return False
    same_app = {(package.name, package.version) for package in app} == kept
    return same_app and all(present.get(name, {}).get("version") == now for name, now in versions.items())


def write(settings: Settings) -> list[str]:
    """Write the bill unless that of the same images and app is there; what was changed, one sentence.

    MusicError where Docker or the folder of the data is closed to this user.
    """
    path = settings.paths.data / "sbom.cdx.json"
    images, app = running_images(), packages_of_app()
    versions = {image.name: image.id for image in images} | {APP: version(APP)}
    if is_of(path, versions, app):
        return []
    found = {APP: app, BOARD: sorted(debian_packages(Path("/")))}
    found |= {image.name: packages_of_image(image) for image in images}
    part = path.with_suffix(".part")
    try:
        part.write_text(bill(found, versions), encoding="utf-8")
    except PermissionError:
        raise MusicError.of(
            "SBOM",
            found=f"{path.parent} closed to this user",
            wanted="root",
            remedy="sudo musicctl sbom",
        ) from None
    part.replace(path)
    return [f"SBOM of {sum(map(len, found.values())):,} packages in {path}"]
