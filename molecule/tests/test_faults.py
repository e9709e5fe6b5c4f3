"""A handful of faults under load, picked by the day's date; `make test-faults` applies all of them."""

from __future__ import annotations

import datetime as dt
import json
import random
import uuid

import pytest
from rich.console import Console

from conftest import wait_for
from fault_bench import SHORT, Bench, Outcome
from faults import CATALOGUE, markdown, order, recorded, run, summary
from figures import SLOWEST, add

# The reboot story pulls the plug.
PICKED_FROM = [
    fault for fault in CATALOGUE if fault.daily and fault.lasts < SHORT and "power cut" not in fault.name
]
COUNT = 5


@pytest.mark.parametrize("wrong", [{"recovery": 61}, {"lost": 1}, {"doubled": 1}, {"remark": "no play"}])
def test_an_outcome_is_wrong_by_each_of_its_parts(wrong):
    right = {"name": "fault", "limit": 60, "recovery": 60}
    assert Outcome(**right).ok
    assert not Outcome(**right | wrong).ok
    assert Outcome(**right | wrong).within(SLOWEST) == ("recovery" in wrong)


def test_a_run_goes_on_behind_its_record(tmp_path):
    """No board is needed: order and chance are those of the seed, and a line that was cut off counts for nothing."""
    first, second = list(order(CATALOGUE, 7, 2)), list(order(CATALOGUE, 7, 2))
    assert [(fault.name, chance.random()) for fault, chance in first] == [
        (fault.name, chance.random()) for fault, chance in second
    ]
    assert len(first) == len(CATALOGUE) + sum(not fault.lasts for fault in CATALOGUE)
    whole = {"name": "fault", "limit": 60, "recovery": 61.2, "lost": 3, "kafka": 5000, "load": 7}
    record = tmp_path / "record"
    record.write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:20])
    outcomes = recorded(record)
    assert outcomes == [Outcome(**whole)]
    assert recorded(record) == outcomes
    assert "| fault | 1 | 61 | 7 | 60 | 3 | 0 | 0 | 1 |" in markdown(outcomes, 7)


def test_no_fault_loses_or_doubles_a_play(board):
    chance = random.Random(dt.datetime.now(dt.UTC).date().toordinal())  # noqa: S311
    outcomes = list(run(Bench(board), [(fault, chance) for fault in chance.sample(PICKED_FROM, COUNT)]))
    Console(width=150).print(summary(outcomes))
    assert len(outcomes) == COUNT
    add(f"longest recovery from {COUNT} faults", max(one.recovery for one in outcomes), "s", at_most=60)
    add("plays lost or doubled by faults", sum(one.lost + one.doubled for one in outcomes), "", at_most=0)
    # As all times of `make test`; `make test-faults` holds the limit itself.
    assert [one for one in outcomes if not one.within(SLOWEST)] == []


# Last of all that reads the topic: kafka-python on the board cannot.
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_stored_and_read(board, codec):
    play = {
        "event_id": str(uuid.uuid4()),
        "event_time": "2026-01-01T00:00:00Z",
        "source": "import",
        "user_id": "codec",
        "title": codec,
        "artist": "Codec",
    }
    board.ssh(
        f"echo '{json.dumps(play)}' | sudo docker exec --interactive music-kafka java -Xmx64m"
        " org.apache.kafka.tools.ConsoleProducer --bootstrap-server 127.0.0.1:9092 --topic stream_events"
        f" --compression-codec {codec}"
    )
    wait_for(
        f"the play sent with {codec}",
        lambda: (
            [codec] in board.sql(f"SELECT title FROM stream_events WHERE event_id = '{play['event_id']}'")
        ),
    )
