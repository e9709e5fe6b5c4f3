"""Roles keep to what they say of themselves: defaults, prefixes, and the arguments of the internal ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from docs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = sorted(path.name for path in (PROJECT / "roles").iterdir())
# Ansible checks arguments at every call when their entry is called as its task file: a seventh of a second run.
SETTINGS, ARGUMENTS = "settings", "_arguments"


def specs(role: str) -> dict[str, dict]:
    text = (PROJECT / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["argument_specs"]


def tasks(value: object) -> Iterator[dict]:
    """Every task below `value`, in blocks as well."""
    if isinstance(value, list):
        for item in value:
            yield from tasks(item)
    elif isinstance(value, dict):
        yield value
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks"):
            yield from tasks(value.get(key))


def calls() -> list[tuple[str, str, dict]]:
    """Each call of an internal role: where, its entry, the task."""
    found = []
    for path in sorted([*PROJECT.glob("roles/*/tasks/*.yml"), *PROJECT.glob("playbooks/**/*.yml")]):
        for task in tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            call = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role") or {}
            if call.get("name", "").startswith("_"):
                where = f"{path.relative_to(PROJECT)}: {task['name']}"
                found.append((where, f"{call['name']} {call.get('tasks_from', 'main')}", task))
    return found


CALLS = calls()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_argument_specs(role):
    file = PROJECT / "roles" / role / "defaults/main.yml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    given = {
        name: option["default"]
        for entry in specs(role).values()
        for name, option in entry["options"].items()
        if "default" in option
    }
    assert given == defaults
    assert [name for name in defaults if not name.startswith(_prefix(role))] == []


@pytest.mark.parametrize("role", ROLES)
def test_no_entry_is_checked_by_ansible_at_every_call(role):
    entries = set(specs(role))
    if not role.startswith("_"):
        assert entries == {SETTINGS}
    for entry in entries - {SETTINGS}:
        assert entry.endswith(ARGUMENTS), entry
        assert (PROJECT / "roles" / role / "tasks" / f"{entry.removesuffix(ARGUMENTS)}.yml").exists(), entry


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_notes_has_its_prefix(role):
    text = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "roles" / role).rglob("*.yml"))
    noted = re.findall(r"^ *register: (\w+)$|set_fact:\n +(\w+):|^(__\w+):", text, flags=re.MULTILINE)
    # What roles share begins with music_; board tells the others what it has seen.
    assert [
        name
        for names in noted
        for name in names
        if name and not name.lstrip("_").startswith((_prefix(role), "music_"))
    ] == []


def test_registered_values_are_internal_by_name():
    found = [*PROJECT.glob("roles/*/*/*.yml"), *PROJECT.glob("playbooks/**/*.yml")]
    names = [
        name for path in found for name in re.findall(r"register: (\w+)", path.read_text(encoding="utf-8"))
    ]
    assert len(names) > 50
    assert [name for name in names if not name.startswith("__")] == []


@pytest.mark.parametrize(("where", "entry", "task"), CALLS, ids=[where for where, _, _ in CALLS])
def test_internal_roles_are_called_with_their_arguments(where, entry, task):
    role, tasks_from = entry.split()
    options = specs(role)[tasks_from + ARGUMENTS]["options"]
    given = set(task.get("vars", {}))
    assert given - set(options) - {name for name in given if name.startswith("__")} == set(), where
    assert {name for name, option in options.items() if option.get("required")} - given == set(), where


def test_the_calls_are_found():
    assert {entry for _, entry, _ in CALLS} >= {
        "_container main",
        "_container install",
        "_image main",
        "_secret main",
    }


def _prefix(role: str) -> str:
    return role.lstrip("_") + "_"
