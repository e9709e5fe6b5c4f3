"""The one kind of error that is shown to the owner of a board as it is: found, wanted, remedy."""

from __future__ import annotations

from typing import Self


class MusicError(Exception):
    """Something the owner can mend; commands print the text and exit with 1, never a traceback."""

    @classmethod
    def of(cls, subject: str, *, found: str, wanted: str, remedy: str) -> Self:
        """The error as one sentence of the house's form."""
        return cls(f"{subject}: found {found}, wanted {wanted}. Remedy: {remedy}")
