"""What became of an import: numbers, and for each reason why a row was left out some examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from music_streaming.imports.plays import REASONS, Left

EXAMPLES = 3
"""Rows shown for each reason."""


@dataclass
class Report:
    """Rows of the files = taken + the left ones, whatever happens.

    files: (name, format, rows). others: files that are no export. new: plays that the tables have since, of
    those taken; None where nothing was sent.
    """

    listener: str
    files: list[tuple[str, str, int]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    taken: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    new: int | None = None

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(rows for _, _, rows in self.files)

    def leave(self, left: Left) -> None:
        """Count a row that is not taken."""
        self.left[left.reason] += 1
        shown = self.examples.setdefault(left.reason, [])
        if len(shown) < EXAMPLES and left.example not in shown:
            shown.append(left.example)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "listener": self.listener,
            "files": [{"name": name, "format": known, "rows": rows} for name, known, rows in self.files],
            "other_files": self.others,
            "rows": self.rows,
            "taken": self.taken,
            "left": {
                reason: {"rows": count, "means": REASONS[reason], "examples": self.examples[reason]}
                for reason, count in self.left.most_common()
            },
            "new": self.new,
        }

    def sentences(self) -> list[str]:
        """What is said at the end, a line each."""
        said = [f"{rows:,} rows of {name} ({known})" for name, known, rows in self.files]
        if self.others:
            names = ", ".join(self.others[:EXAMPLES])
            more = "" if len(self.others) <= EXAMPLES else f" and {len(self.others) - EXAMPLES:,} more"
            said.append(f"{len(self.others):,} files that are no known export: {names}{more}")
        for reason, count in self.left.most_common():
            said.append(f"{count:,} left out: {REASONS[reason]} ({'; '.join(self.examples[reason])})")
        if self.new is None:
            said.append(f"{self.taken:,} plays of {self.listener} would be sent; nothing was changed")
        else:
            said.append(f"{self.taken:,} plays of {self.listener} sent: {self.new:,} new in the tables")
        return said
