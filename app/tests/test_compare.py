"""The bench that sets the product beside its peers: its plays, what it measures, and its table."""

import datetime as dt
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from compare import measure
from compare.contenders import BY_NAME
from compare.plays import FIELDS, SPAN, START, generate
from compare.report import table
from compare.run import Result
from music_streaming.event import FIELD_NAMES, format_time, parse_event
from music_streaming.testing import wait_for


def test_plays_are_good_and_the_same_each_time() -> None:
    first, again = list(generate(500)), list(generate(500))
    assert first == again
    for play in first:
        assert parse_event(json.dumps(play).encode(), dt.datetime.now(dt.UTC)).flaws == ()
    assert len({play["event_id"] for play in first}) == 500
    assert set(FIELDS) <= set(FIELD_NAMES)
    assert (first[0]["event_time"], first[-1]["event_time"] < format_time(START + SPAN)) == (
        format_time(START),
        True,
    )


BUSY = """
import os, sys, time
end = time.process_time() + 0.5
while time.process_time() < end: pass
with open(sys.argv[1], "wb") as file: file.write(bytes(3_000_000)); file.flush(); os.fsync(file.fileno())
print("done", flush=True); time.sleep(60)
"""


def test_use_counts_descendants(tmp_path: Path) -> None:
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", outer, BUSY, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"done\n"
            seen = wait_for(lambda: measure.use(process.pid), lambda use: use.cpu >= 0.5, 30)
            assert seen.cpu >= 0.5, seen
            assert seen.pss > 5, seen
            # On a file system in memory nothing goes towards a disk.
            assert seen.written == pytest.approx(3, abs=1) or seen.written < 0.5, seen
        finally:
            os.killpg(process.pid, 9)


def test_an_ended_process_has_used_nothing() -> None:
    assert measure.alone(2**22 + 1) == measure.Use()


def shown(results: list[Result], missing: dict[str, str]) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table(results, missing))
    return console.file.getvalue()


def test_table_has_medians_verdicts_and_who_is_missing() -> None:
    def result(name: str, seconds: float, **holds: int) -> Result:
        return Result(
            name, 1000, seconds, {"contender": 2, "postgres": 1, "kafka": 0, "other": 9}, holds=holds
        )

    text = shown(
        [
            *(result("ours", seconds, raw=1000) for seconds in (1, 2, 4)),
            *(result("dicts", seconds, raw=999) for seconds in (2, 2, 2)),
            result("spark-parse", 1),
        ],
        {"flink-windows": "no compiler of Java"},
    )
    (ours,) = (line for line in text.splitlines() if line.startswith("│ ours"))
    (dicts,) = (line for line in text.splitlines() if line.startswith("│ dicts"))
    assert [cell.strip() for cell in ours.split("│")[1:5]] == ["ours", "500", "1.00", "3000"]
    assert "exact" in ours
    # Of neighbours: 2/1, 2/2, 2/4.
    assert dicts.split("│")[3].strip() == "1.00"
    assert "wrong: {'raw': 999}" in dicts
    assert "not set up: no compiler of Java" in text
    assert "nothing stored" in text


@pytest.mark.parametrize("name", BY_NAME)
def test_every_contender_is_told_of(name: str) -> None:
    assert BY_NAME[name].what
    assert BY_NAME[name].command()
