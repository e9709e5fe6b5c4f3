"""Names in an inventory that nothing reads, and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Two names this much alike are one name, misspelt, whatever they begin with.
ALIKE = 0.9


def unknown_settings(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that are no setting but look like one, each with the nearest name that is; sorted."""
    settings = sorted(known)
    prefixes = tuple({f"{name.partition('_')[0]}_" for name in settings})
    found = []
    for name in sorted(set(names).difference(settings)):
        if name.startswith(("ansible_", "_")):
            continue
        ours = name.startswith(prefixes)
        near = difflib.get_close_matches(name, settings, n=1, cutoff=0.6 if ours else ALIKE)
        if ours or near:
            found.append(f"{name} (perhaps {near[0]}?)" if near else name)
    return found


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, object]:
        """Filters of this file by name."""
        return {"unknown_settings": unknown_settings}
