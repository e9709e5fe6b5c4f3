"""Deletes the demo's plays from the database: every row of source demo, raw and metrics, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg2 import sql

from music_streaming import broker
from music_streaming.demo.backfill import expected_file, plan_file
from music_streaming.lag import Lag
from music_streaming.metrics import ROLL_UPS, TABLE_NAMES, TABLES, columns
from music_streaming.settings import Role, Settings

_PARTITIONED = tuple(f"{table.name}_demo" for table in TABLES)


def remove(settings: Settings) -> int:
    """Wait until the job has stored all that is in Kafka, then delete; returns how many plays there were.

    The producer must have been stopped. If it is interrupted, run it again. LagError where the
    job stands still, psycopg2.Error as it comes.
    """
    Lag(settings, ends=broker.ends_of_topic(settings.kafka)).wait_until_stored()
    with settings.postgres.connection(Role.OWNER, application="musicctl-demo") as connection:
        removed = delete_rows(connection, settings.stream.watermark_delay_seconds)
        # Only now: as long as a play is there, the next history must be the same one.
        for path in (expected_file(settings), plan_file(settings)):
            path.unlink(missing_ok=True)
        _vacuum(connection)
    return removed


def delete_rows(connection: Any, watermark_delay_seconds: int) -> int:
    """Delete the demo's rows in one transaction, as music_owner; returns how many accepted plays there were.

    The watermark goes back to where real plays alone would have moved it: windows that only the demo had
    closed are open again.
    """
    with connection, connection.cursor() as cursor:
        for statement in _statements():
            cursor.execute(statement, {"delay": watermark_delay_seconds})
        cursor.execute(
            "WITH before AS (SELECT accepted FROM ingest_totals WHERE source = 'demo') "
            "UPDATE ingest_totals SET removed = removed + accepted, accepted = 0, expired = 0, late = 0, "
            "newest_event_time = NULL, updated_at = now() WHERE source = 'demo' "
            "RETURNING (SELECT accepted FROM before)"
        )
        removed: int = cursor.fetchone()[0]
        cursor.execute(
            "UPDATE ingest_state SET watermark = least(watermark, (SELECT max(newest_event_time) "
            "FROM ingest_totals) - make_interval(secs => %s)), updated_at = now()",
            (watermark_delay_seconds,),
        )
        cursor.execute(
            "UPDATE ingest_state SET watermark = NULL WHERE NOT EXISTS "
            "(SELECT FROM ingest_totals WHERE newest_event_time IS NOT NULL)"
        )
        # Last, since it keeps readers out until the end.
        cursor.execute(sql.SQL("TRUNCATE {}").format(columns(("stream_events_demo", *_PARTITIONED))))
    return removed


def _statements() -> Iterator[str | sql.Composed]:
    # Longer than any query of the dashboards may take.
    yield "SET LOCAL lock_timeout = '60s'"
    # Every batch begins with these rows: the job waits there, and one that is being written is waited for.
    yield "LOCK TABLE ingest_offsets IN EXCLUSIVE MODE"
    # As the folding of windows and the expiry of old plays do.
    yield "SELECT pg_advisory_xact_lock(hashtext('metrics_folding'))"
    yield "SELECT pg_advisory_xact_lock(hashtext('demo_partitions'))"
    for table in (*(roll_up.name for roll_up in ROLL_UPS), "metrics_expired", "ingest_periods"):
        yield sql.SQL("DELETE FROM {} WHERE source = 'demo'").format(sql.Identifier(table))
    yield (
        "DELETE FROM songs AS s WHERE NOT EXISTS "
        "(SELECT FROM content_performance_own AS c WHERE c.song = s.song)"
    )


def _vacuum(connection: Any) -> None:
    """Give the space back; on a board without real plays the tables are then empty files."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("VACUUM (ANALYZE) {}").format(columns((*TABLE_NAMES, "songs"))))
