"""Write the parts of the docs that are generated: `make docs`. test_docs.py fails when they are stale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from filter_plugins.disk_budget import Part, defaults, disk_budget
from music_streaming.board.breakages import BREAKAGES

PROJECT = Path(__file__).parents[2]
SETTINGS = PROJECT / "docs/settings.md"
DISK = PROJECT / "docs/disk.md"
DOCTOR = PROJECT / "docs/doctor.md"
# In the order of the flow.
ROLES = [
    "board",
    "docker",
    "firewall",
    "_image",
    "kafka",
    "postgres",
    "spark",
    "pipeline",
    "superset",
    "backup",
]
WIRING: dict[str, dict[str, object]] = yaml.safe_load(
    (PROJECT / "playbooks/vars/wiring.yml").read_text(encoding="utf-8")
)["wiring_specs"]


def options(role: str) -> dict[str, dict[str, object]]:
    """The public settings of `role` from its meta/argument_specs.yml."""
    text = (PROJECT / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8")
    found: dict[str, dict[str, object]] = yaml.safe_load(text)["argument_specs"]["settings"]["options"]
    return found


def settings_table() -> str:
    """The table of all settings, in Markdown."""
    wiring = yaml.safe_load((PROJECT / "playbooks/group_vars/all.yml").read_text(encoding="utf-8"))
    rows = ["| setting | default | what |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {_cell(wiring[name])} | {option['description']} |" for name, option in WIRING.items()
    ]
    for role in ROLES:
        for name, option in options(role).items():
            text = " ".join(str(option["description"]).split())
            rows.append(f"| `{name}` | {_cell(option.get('default', ''))} | {text} |")
    return "\n".join(rows)


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if "{{" in text:
        return "derived"
    return f"`{text}`".replace("|", "\\|") if text else "empty"


def with_part(text: str, name: str, part: str) -> str:
    """`text` with what stands between the markers of `name` replaced by `part`."""
    return re.sub(
        rf"(<!-- {name}.*?-->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{part}\n{m[2]}", text, flags=re.DOTALL
    )


def disk_parts(**settings: object) -> list[Part]:
    """What the appliance takes with these settings, all others at their defaults."""
    topics = yaml.safe_load((PROJECT / "files/topics.yml").read_text(encoding="utf-8"))
    return disk_budget(defaults({role: options(role) for role in ROLES}) | settings, topics)


def disk_table() -> str:
    """The table of what grows, in Markdown."""
    rows = ["| what | MB at most | how far | settings |", "|---|---|---|---|"]
    for part in disk_parts():
        settings = ", ".join(f"`{name}`" for name in part.settings) or "fixed"
        rows.append(f"| {part.what} | {part.mb:,} | {part.how} | {settings} |")
    rows.append(f"| **together** | **{sum(part.mb for part in disk_parts()):,}** | | |")
    demo = sum(part.mb for part in disk_parts(pipeline_producer_rate="20") if "demo" in part.what)
    return "\n".join(rows) + f"\n\nWith `pipeline_producer_rate: 20` the demo's two parts take {demo:,} MB."


def doctor_table() -> str:
    """The table of breakages, in Markdown."""
    rows = ["| link | what is broken | wanted | remedy | `--fix` |", "|---|---|---|---|---|"]
    for breakage in BREAKAGES.values():
        link = breakage.link or "that of the unit"
        cells = (link, breakage.what, breakage.wanted, breakage.remedy, breakage.mend or "-")
        shown = [re.sub(r"{(\w+)}", lambda name: name[1].upper(), cell).replace("|", "\\|") for cell in cells]
        rows.append(f"| {' | '.join(shown)} |")
    return "\n".join(rows)


def rendered(page: Path = SETTINGS) -> str:
    """A page with generated parts as it should be."""
    text = with_part(page.read_text(encoding="utf-8"), "settings:", settings_table())
    text = with_part(text, "doctor:", doctor_table())
    return with_part(text, "disk:", disk_table())


if __name__ == "__main__":
    for page in (SETTINGS, DISK, DOCTOR):
        page.write_text(rendered(page), encoding="utf-8")
