"""The one kind of error that is shown to the owner of a board as it is: found, wanted, remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psycopg2


class MusicError(Exception):
    """Something the owner can mend; commands print the text and exit with 1, never a traceback."""

    @classmethod
    def of(cls, subject: str, *, found: str, wanted: str, remedy: str) -> Self:
        """The error in the common form: part, found, wanted, remedy."""
        return cls(f"{subject}: found {found}, wanted {wanted}. Remedy: {remedy}")


class DatabaseError(MusicError):
    """What PostgreSQL refused, or that it does not answer."""


def connection_failed(error: psycopg2.Error) -> bool:
    """Whether there is no connection any more, or never was: what the next one may mend."""
    import psycopg2  # noqa: PLC0415  only who connects pays for the driver

    if error.pgcode:
        # Connection exceptions, a server that was told to end it, and one that was idle in a transaction.
        return error.pgcode.startswith(("08", "57P", "25P03"))
    # libpq itself gives no SQLSTATE.
    return isinstance(error, psycopg2.InterfaceError | psycopg2.OperationalError)


def database_error(error: psycopg2.Error) -> DatabaseError | None:
    """What `error` says to the owner of a board, by its class; None for what is a mistake of the program."""
    from psycopg2 import Error, InterfaceError, OperationalError, errors  # noqa: PLC0415

    # Where a transaction's rollback finds no connection any more, that hides what ended it.
    while isinstance(error, InterfaceError) and isinstance(error.__context__, Error):
        error = error.__context__
    said = " ".join(str(error).split()) or type(error).__name__
    if connection_failed(error):
        return DatabaseError.of(
            "PostgreSQL does not answer",
            found=repr(said),
            wanted="a connection",
            remedy="systemctl status music-postgres; journalctl -u music-postgres -n 50",
        )
    known = {
        errors.QueryCanceled: (
            "a query that ends in time",
            "try again when the board is less busy; postgres_reader_timeout_seconds is the readers' limit",
        ),
        errors.InsufficientPrivilege: ("a role with that right", "run the play (site.yml): it grants them"),
        errors.UndefinedTable: ("the tables of this version", "sudo musicctl schema"),
        errors.UndefinedColumn: ("the tables of this version", "sudo musicctl schema"),
        errors.UndefinedFunction: ("the functions of this version", "sudo musicctl schema"),
        errors.DiskFull: ("room on the disk", "free some; everything goes on by itself"),
        errors.TooManyConnections: ("a free connection", "raise postgres_max_connections in the inventory"),
        errors.LockNotAvailable: ("a lock that is soon free", "try again when the other command has ended"),
        errors.DeadlockDetected: ("a transaction that passes", "try again"),
        errors.SerializationFailure: ("a transaction that passes", "try again"),
    }
    for kind, (wanted, remedy) in known.items():
        if isinstance(error, kind):
            return DatabaseError.of("PostgreSQL", found=repr(said), wanted=wanted, remedy=remedy)
    if isinstance(error, OperationalError):
        return DatabaseError.of(
            "PostgreSQL",
            found=f"{type(error).__name__} {said!r}",
            wanted="a server that can do its work",
            remedy="journalctl -u music-postgres -n 50",
        )
    return None
