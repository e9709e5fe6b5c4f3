"""The contract of an event, for whatever may come: a play as the contract has it, or one of the known reasons."""

import datetime as dt
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from music_streaming import event
from music_streaming.testing.events import NOW, encode, moments, texts, values

PLAY = {
    "event_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "event_time": "2026-11-25T11:58:59.123Z",
    "source": "import",
    "user_id": "u1",
    "title": "Song",
    "artist": "Artist",
}


def verdict(value: bytes) -> dict[str, Any] | str:
    """The play, or the reason why it is none."""
    try:
        return event.parse_event(value, NOW).play
    except event.Rejected as reject:
        reason = reject.reason
    assert reason in event.REASONS
    return reason


@settings(max_examples=1500, deadline=None)
@given(values)
def test_whatever_comes_is_a_play_that_can_be_stored_or_a_known_reason(value: bytes) -> None:
    play = verdict(value)
    if isinstance(play, str):
        return
    assert tuple(sorted(play)) == tuple(sorted(event.PLAY_COLUMNS))
    for field in event.FIELDS:
        stored = play[field.name]
        if isinstance(stored, str):
            assert "\0" not in stored
            assert len(stored.encode()) <= (field.limit or 36)
            if field.kind in ("text", "name"):
                assert stored == event.normalise(stored)
        if field.kind == "integer":
            assert stored is None or event.INTEGERS[field.name] <= stored <= event.MAX_MS
        assert stored is not None or not field.required
    assert event.FIRST_TIME <= play["event_time"] <= NOW + dt.timedelta(minutes=5)


@settings(max_examples=500, deadline=None)
@given(values)
def test_a_stored_play_sent_again_is_the_same(value: bytes) -> None:
    play = verdict(value)
    if isinstance(play, str):
        return
    again = {name: stored for name, stored in play.items() if stored is not None}
    assert event.parse_event(encode(again | {"event_time": event.format_time(play["event_time"])}), NOW) == (
        play,
        (),
    )


@settings(deadline=None)
@given(texts, texts)
@example("e\u0301", "\u212b")
@example("ﬁ", "\u1e9b\u0323")
def test_every_form_of_a_text_is_one_key(title: str, artist: str) -> None:
    forms = [
        verdict(encode(PLAY | {"title": unicodedata.normalize(form, title), "artist": unicodedata.normalize(form, artist)}))
        for form in ("NFC", "NFD")
    ]  # fmt: skip
    # Apart, a text may be longer than an event can be.
    assume("too_long" not in forms)
    assert forms[0] == forms[1]


@given(moments, st.integers(-18 * 60, 18 * 60))
def test_a_time_is_the_same_moment_in_any_zone(moment: dt.datetime, minutes: int) -> None:
    local = moment.astimezone(dt.timezone(dt.timedelta(minutes=minutes)))
    play = verdict(encode(PLAY | {"event_time": local.isoformat()}))
    assert isinstance(play, dict)
    assert play["event_time"] == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@given(moments, st.sampled_from([1, 10**3, 10**6, 10**9]), st.sampled_from([int, float, str]))
def test_a_unix_time_is_malformed_whatever_its_unit(moment: dt.datetime, unit: int, kind: type) -> None:
    assert verdict(encode(PLAY | {"event_time": kind(int(moment.timestamp()) * unit)})) == "malformed"


@pytest.mark.parametrize(
    "date", ["2026-02-29", "2026-04-31", "2026-00-10", "2026-13-01", "2026-11-00", "2026-11-32"]
)
def test_a_date_that_cannot_be_is_malformed(date: str) -> None:
    assert verdict(encode(PLAY | {"event_time": f"{date}T00:00:00Z"})) == "malformed"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("Song", "Artist", 0), ("Song", "Artist", 0.9), True),
        (("Song", "Artist", 0), (" song ", "ARTIST", 0), True),
        (("Café", "Artist", 0), ("Cafe\u0301", "Artist", 0), True),
        (("Song", "Artist", 0), ("So\u200bng", "Artist", 0), True),
        (("Song", "Artist", 0), ("Song", "Artist", 1), False),
        (("Song", "Artist", 0), ("Songs", "Artist", 0), False),
        (("Song", "Artist", 0), ("Artist", "Song", 0), False),
    ],
)
def test_one_play_is_one_play_whatever_brings_it(one, other, same):
    whole = NOW.replace(microsecond=0)

    def made(title: str, artist: str, seconds: float) -> str:
        return event.play_id("ada", whole + dt.timedelta(seconds=seconds), artist, title)

    assert (made(*one) == made(*other)) is same
    assert made(*one) != event.play_id("bob", whole, one[1], one[0])
