"""Write the database of a release, with plays in it, for the test that later migrations carry it over.

Run once for each release, at its commit: PYTHONPATH=app python app/tests/release_database.py 0.1.0
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import random
import subprocess
from pathlib import Path

import click

from music_streaming import event
from music_streaming.retention import Ages, housekeep
from music_streaming.table import Rules, prepare_session, write
from music_streaming.testing.postgres import Database, migrated_database, throw_away_cluster
from test_table import NOW, batch, play, rows

RELEASED = Path(__file__).parent / "released"
# Days back that plays of each source reach, and how many there are.
SOURCES = {"scrobble": (3 * 365, 600), "import": (15 * 365, 300), "demo": (10, 400)}


def fill(database: Database) -> None:
    """What a board's database holds: plays of all ages, some sent twice, rejects, folded and proved windows."""
    chance = random.Random(1)
    sent = []
    for source, (days, count) in SOURCES.items():
        for _ in range(count):
            at = NOW - dt.timedelta(seconds=chance.uniform(60, days * 86_400))
            sent.append(
                play(
                    len(sent),
                    event_time=event.format_time(at.replace(microsecond=0)),
                    source=source,
                    user_id="owner" if source != "demo" else f"u{chance.randrange(30)}",
                    title=f"Song {chance.randrange(90)}",
                    artist=f"Artist {chance.randrange(25)}",
                    genre=chance.choice(["pop", "jazz", "Électro", None]),
                    country=chance.choice(["DE", "IN", "US"]),
                    listened_ms=chance.choice([950, 1_000, 100]),
                )
            )
    chance.shuffle(sent)
    odd = [sent[0], sent[1], {**play(9_000), "duration_ms": -1}, b"{", b'{"event_id": 1}', None]
    ahead = play(9_001, event_time=event.format_time(NOW + dt.timedelta(days=40)), source="scrobble")
    with contextlib.closing(database.connect()) as writer:
        prepare_session(writer)
        half = len(sent) // 2
        write(writer, batch(rows(*sent[:half])), Rules())
        write(writer, batch(rows(*sent[half:], start=half)), Rules())
        write(writer, batch(rows(*odd, ahead, start=len(sent), fast=False)), Rules())
        housekeep(writer, Ages())
    database.rows("INSERT INTO listeners (name) VALUES ('owner')", role="music_owner")


@click.command()
@click.argument("version")
def main(version: str) -> None:
    """Write app/tests/released/VERSION.sql.gz with this commit's migrations and code."""
    with throw_away_cluster() as cluster, migrated_database(cluster) as database:
        fill(database)
        argv = ["pg_dump", f"--dbname={database.dsn('postgres')}"]
        dump = subprocess.run(argv, check=True, capture_output=True).stdout
    RELEASED.mkdir(exist_ok=True)
    target = RELEASED / f"{version}.sql.gz"
    target.write_bytes(gzip.compress(dump, mtime=0))
    click.echo(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
