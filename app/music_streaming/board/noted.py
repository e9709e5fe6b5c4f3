"""What the hourly look has found, in the database: for Pipeline health (files/schema/012_board.sql)."""

from __future__ import annotations

from psycopg2.extras import execute_values

from music_streaming.board.health import Finding, Health
from music_streaming.settings import PostgresSettings, Role

WELL = Finding("green", "board", "all is well", "sudo musicctl health")
# A name that a board had once.
KEPT = "7 days"


def write(postgres: PostgresSettings, board: str, health: Health) -> None:
    """Replace what was noted of `board`, in one transaction; psycopg2.Error where the database refuses."""
    findings = [
        (board, position, finding.level, finding.name, finding.found, finding.command)
        for position, finding in enumerate(health.findings or [WELL])
    ]
    written = [(board, name, count) for name, count in health.a_day.items()]
    with (
        postgres.connection(Role.WRITER, application="musicctl-health") as connection,
        connection,
        connection.cursor() as cursor,
    ):
        for table in ("board_findings", "board_writes"):
            cursor.execute(
                f"DELETE FROM {table} WHERE board = %s OR noted_at < now() - %s::interval",  # noqa: S608
                (board, KEPT),
            )
        execute_values(
            cursor,
            "INSERT INTO board_findings (board, position, level, name, found, command) VALUES %s",
            findings,
        )
        if written:
            execute_values(
                cursor, "INSERT INTO board_writes (board, service, bytes_a_day) VALUES %s", written
            )
