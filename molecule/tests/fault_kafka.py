"""Faults of Kafka's topic and files."""

from __future__ import annotations

import random
import time

from fault_bench import ACCOUNT, Bench


def recreate_topic(bench: Bench, _chance: random.Random) -> list[str]:
    """Delete the topic under load and make it again; what the job had not read went with it.

    Settled just before, so that only the plays of the moments around the deletion can be in question.
    """
    bench.settle()
    return list(bench.board.script_on_board("fault_topic.py", "recreate", ACCOUNT)["ids"])


def retention(bench: Bench, _chance: random.Random) -> list[str]:
    """While the job is down, Kafka deletes half of what it has not read; the gap must be noted to the record."""
    bench.root("systemctl stop music-metrics; sleep 10")
    done = bench.board.script_on_board("fault_topic.py", "retention", ACCOUNT)
    bench.root("systemctl start --no-block music-metrics")
    deadline = time.monotonic() + 120
    gaps: list[list[int]] = []
    while gaps != done["gaps"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"saw the gaps {gaps} noted, wanted {done['gaps']}")
        time.sleep(1)
        rows = bench.board.sql(
            "SELECT partition, from_offset, to_offset FROM ingest_gaps WHERE cause = 'retention'"
            " AND noticed_at > now() - interval '3 minutes' ORDER BY 1"
        )
        gaps = [[int(cell) for cell in row] for row in rows if row[0].isdigit()]
    return list(done["ids"])


def transactions(bench: Bench, _chance: random.Random) -> None:
    """Plays in a transaction that is aborted, which count nowhere, and in one that is committed; neither is a loss."""
    holes = "SELECT count(*) FROM ingest_gaps WHERE cause IN ('hole', 'shortened', 'began_anew')"
    before = bench.board.sql(holes)[-1]
    sent = bench.board.script_on_board("fault_topic.py", "transactions")
    ids = ",".join(f"'{play}'" for play in (*sent["committed"], *sent["aborted"]))
    counted = f"SELECT count(*) FROM stream_events WHERE event_id IN ({ids})"
    deadline = time.monotonic() + 60
    while (seen := int(bench.board.sql(counted)[-1][0])) != len(sent["committed"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"saw {seen} plays of both transactions, wanted {len(sent['committed'])}")
        time.sleep(1)
    if (after := bench.board.sql(holes)[-1]) != before:
        raise TimeoutError(f"saw {after} gaps noted, wanted {before}: a marker is no loss")


SMALL_FILES = (
    "meta.properties",
    "stream_events-*/partition.metadata",
    "stream_events-*/leader-epoch-checkpoint",
    "__cluster_metadata-0/quorum-state",
    "__cluster_metadata-0/partition.metadata",
    "__cluster_metadata-0/leader-epoch-checkpoint",
    ".kafka_cleanshutdown",
    "*-offset-checkpoint",
)


def spoil_small_file(bench: Bench, chance: random.Random) -> None:
    """Cut a small file of the broker to nothing or to a few bytes, or take it away, while it is down."""
    pattern = chance.choice(SMALL_FILES)
    harm = chance.choice(["rm", "truncate -s 0", "truncate -s 5"])
    bench.root(
        "systemctl stop music-kafka; cd /var/lib/music/kafka || exit 1;"
        f' file=$(ls -d {pattern} | shuf -n 1); [ -f "$file" ] && {harm} "$file"; done=$?;'
        f' systemctl start --no-block music-kafka; [ $done = 0 ] || {{ echo "no file {pattern}" >&2; exit 1; }}'
    )
