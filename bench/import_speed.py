"""How fast a history is read and decided on, on one core and without Kafka: plays a second, and memory.

    PYTHONPATH=app .venv/bin/python bench/import_speed.py [--plays 100000]

Reads a made Spotify export into the spool, with everything that a play costs but the sending. Sending is
bounded by the client (14,600 records a second, docs of the producer) and by the job.
"""

from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from music_streaming.imports.formats import recognise
from music_streaming.imports.importer import CHUNK, MOST, spooled
from music_streaming.imports.plays import Play, Reading
from music_streaming.imports.spool import Spool
from music_streaming.listener import Listener


def export(count: int) -> io.BytesIO:
    """A Spotify extended streaming history with every field that one has."""
    first = datetime(2012, 1, 1, tzinfo=UTC)
    row = {
        "username": "owner", "platform": "Android OS 13 API 33 (Maker, Phone)", "ms_played": 170_000,
        "conn_country": "DE", "ip_addr_decrypted": "192.0.2.7", "user_agent_decrypted": "unknown",
        "spotify_track_uri": "spotify:track:0000000000000000000001", "episode_name": None,
        "episode_show_name": None, "spotify_episode_uri": None, "reason_start": "trackdone",
        "reason_end": "trackdone", "shuffle": True, "skipped": None, "offline": False,
        "offline_timestamp": 1_677_657_600, "incognito_mode": False,
    }  # fmt: skip
    file = io.BytesIO()
    for at in range(count):
        ended = first + timedelta(minutes=4 * at)
        names = {
            "ts": f"{ended:%Y-%m-%dT%H:%M:%SZ}",
            "master_metadata_track_name": f"Song {at % 9_000}",
            "master_metadata_album_artist_name": f"Artist {at % 700}",
            "master_metadata_album_album_name": f"Album {at % 2_000}",
        }
        file.write((b"," if at else b"[") + json.dumps(row | names).encode())
    file.write(b"]")
    return file


@click.command(help=__doc__)
@click.option("--plays", "count", default=100_000, show_default=True)
def main(count: int) -> None:
    file, ada = export(count), Listener("Ada")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    found = recognise(file)
    if found is None:
        raise SystemExit("the export was not recognised")
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "plays")
        for play in found[0].parse(file, Reading.at(datetime.now(UTC)), found[1]):
            if isinstance(play, Play):
                spool.add(0, spooled(play, ada))
        spool.sort()
        decided = sum(len(chunk) for chunk in spool.chunks(0, CHUNK, MOST))
        spool.close()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rates = f"{decided / cpu:,.0f} a second of CPU, {decided / seconds:,.0f} a second"
    print(f"{decided:,} plays: {rates}, {grown:.0f} MB")


if __name__ == "__main__":
    main()
