"""Where reading goes on in a log that a power cut may have shortened, on a real broker."""

import datetime as dt
from pathlib import Path

import pytest
from kafka import TopicPartition

from music_streaming.broker import first_unread, reader
from music_streaming.testing.broker import Broker
from tail import cut_tail
from test_stream import make_topic, plays, send, transact

MILLISECOND = dt.timedelta(milliseconds=1)


def appended(broker: Broker, topic: str, offset: int) -> dt.datetime:
    """When the broker appended the record."""
    with reader(broker.bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), offset)
        ((record, *_),) = consumer.poll(timeout_ms=10_000).values()
    return dt.datetime.fromtimestamp(record.timestamp / 1000, dt.UTC)


def unread(broker: Broker, topic: str, newest: dt.datetime, known: int) -> int | None:
    return first_unread(broker.bootstrap, topic, {0: newest}, {0: known})[0]


def test_a_whole_log_is_read_on_where_it_was_left(broker: Broker, topic: str) -> None:
    make_topic(broker, topic, 1)
    send(broker, topic, [*plays(0, 100)])
    newest = appended(broker, topic, 49)
    assert unread(broker, topic, newest, 50) == 50
    assert unread(broker, topic, appended(broker, topic, 99), 100) == 100
    # What follows the newest one that anybody is shown holds nothing to read.
    transact(broker, topic, plays(100, 5), commit=False)
    assert unread(broker, topic, appended(broker, topic, 99), 106) == 106


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["+0s", "-3h", "-20s"])
def test_in_a_log_that_was_shortened_what_has_the_old_offsets_is_unread(
    tmp_path: Path, topic: str, clock: str, faked: dict[str, str], shift: Path
) -> None:
    broker = Broker(tmp_path, faked)
    try:
        broker.start()
        make_topic(broker, topic, 1)
        send(broker, topic, [*plays(0, 200)])
        send(broker, topic, [*plays(200, 100)])
        kept, newest = appended(broker, topic, 199), appended(broker, topic, 299)
        broker.kill()
        assert len(cut_tail(broker.data, topic, round((newest - kept) / MILLISECOND))) == 100
        # The power is back, and the clock as it says.
        shift.write_text(clock)
        broker.start()
        assert unread(broker, topic, newest, 300) is None
        # Others get the offsets of what was lost.
        send(broker, topic, [*plays(1000, 250)])
        assert unread(broker, topic, newest, 300) == 200
    finally:
        broker.kill()
