"""The probe names the first link that is broken and the unit to look at."""

from __future__ import annotations

import socket

import pytest

from music_streaming.board.trace import BrokenLinkError, trace
from music_streaming.settings import Settings


@pytest.mark.slow
def test_a_missing_broker_is_the_first_broken_link():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings().with_changes(kafka={"bootstrap": f"127.0.0.1:{port}"})
    with pytest.raises(BrokenLinkError) as caught:
        trace(settings, seconds=2)
    assert caught.value.link == "producer -> Kafka"
    assert caught.value.unit == "music-kafka"
    assert caught.value.after == []
    assert "wanted an acknowledged record" in str(caught.value)
