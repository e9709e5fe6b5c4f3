"""Where reading starts, after whatever happened to the topic."""

import datetime as dt

import pytest

from music_streaming.broker import TopicState
from music_streaming.offsets import Stored, starting_offsets

NOW = dt.datetime.now(dt.UTC)
START = {0: 0, 1: 5}
END = {0: 100, 1: 105}


@pytest.mark.parametrize(
    ("stored", "later", "wanted"),
    [
        (None, {}, {0: 0, 1: 5}),
        (Stored("other", {0: 90, 1: 90}, {}), {}, {0: 0, 1: 5}),
        (Stored("id", {0: 90, 1: 90}, {0: NOW, 1: NOW}), {0: 95, 1: None}, {0: 90, 1: 90}),
        (Stored("id", {0: 90, 1: 2}, {0: NOW, 1: NOW}), {0: 90, 1: 7}, {0: 90, 1: 5}),
        (Stored("id", {0: 90}, {0: NOW}), {0: 90, 1: 105}, {0: 90, 1: 5}),
        (Stored("id", {0: 120, 1: 90}, {0: NOW, 1: NOW}), {0: None, 1: 100}, {0: 100, 1: 90}),
        (Stored("id", {0: 90, 1: 90}, {0: NOW, 1: NOW}), {0: 80, 1: None}, {0: 80, 1: 90}),
    ],
    ids=[
        "first start", "another topic", "goes on", "retention passed it", "new partition",
        "broker lost its newest records", "and gave their offsets to others",
    ],
)  # fmt: skip
def test_starting_offsets(
    stored: Stored | None, later: dict[int, int | None], wanted: dict[int, int]
) -> None:
    assert starting_offsets(stored, TopicState("id", START, END), later) == wanted
