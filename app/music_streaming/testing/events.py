"""What may come from outside, as hypothesis strategies: bytes and events, good ones and bad ones."""

import datetime as dt
import json
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from music_streaming import event

NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC)
_UNIX = int(NOW.timestamp())

# Lone surrogates and NUL are among the characters, unlike in hypothesis' own text().
characters = st.characters(codec=None, exclude_categories=()) | st.sampled_from(
    "\0\ud83d\udfb5\u3000\u0301é🎵"
)
texts = st.text(characters, max_size=30) | st.sampled_from(
    ["x" * 1_025, "\u0958" * 342, "Ä" * 512, "x" * 70_000]
)
moments = st.datetimes(dt.datetime(2002, 10, 1), dt.datetime(2026, 11, 25, 12), timezones=st.just(dt.UTC))
times = (
    moments.map(event.format_time)
    | st.sampled_from([_UNIX, _UNIX * 10**3, _UNIX * 10**6, _UNIX * 10**9, float(_UNIX)])
    | st.sampled_from([_UNIX, _UNIX * 10**3, _UNIX * 10**6, _UNIX * 10**9]).map(str)
    | st.sampled_from(
        ["2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-25T25:00:00Z", "0000-00-00T00:00:00Z",
         "2036-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2002-09-30T23:59:59Z", "today"]
    )
)  # fmt: skip
numbers = (
    st.integers() | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400]) | st.floats()
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def _field(field: event.Field) -> st.SearchStrategy[Any]:
    usual: dict[str, st.SearchStrategy[Any]] = {
        "uuid": st.uuids(version=4).map(str),
        "time": times,
        "integer": st.integers(event.INTEGERS.get(field.name, 0), event.MAX_MS),
        "boolean": st.booleans(),
        "vocabulary": st.sampled_from(field.vocabulary or ("",)),
    }
    return usual.get(field.kind, texts)


# As a sender would have it, then one to three fields of anything.
good_events = st.fixed_dictionaries(
    {
        "event_id": st.uuids(version=4).map(str),
        "event_time": moments.map(event.format_time),
        "source": st.sampled_from(event.SOURCES),
        "user_id": st.text("abc", min_size=1, max_size=5),
        "title": st.sampled_from(["Song", "東京事変 🎵", "e\u0301", "=1+1"]),
        "artist": st.sampled_from(["Artist", "مرحبا", "👩‍👩‍👧‍👦"]),
    }
)
events = good_events.flatmap(
    lambda sent: st.lists(st.sampled_from(event.FIELDS), max_size=3, unique=True).flatmap(
        lambda fields: st.fixed_dictionaries({f.name: _field(f) | json_values for f in fields}).map(
            lambda spoiled: sent | spoiled
        )
    )
)


def encode(sent: Any, *, ascii_only: bool = True) -> bytes:
    """JSON as bytes; half a surrogate pair stays what it is, as a careless sender would have it."""
    return json.dumps(sent, ensure_ascii=ascii_only).encode(errors="surrogatepass")


_encoded = st.builds(
    lambda sent, ascii_only: encode(sent, ascii_only=ascii_only), events, ascii_only=st.booleans()
)
values = (
    _encoded
    | st.binary(max_size=40)
    | json_values.map(encode)
    # Cut off, with a stray byte, twice, or nested deeply.
    | st.builds(lambda value, at: value[: at % (len(value) + 1)], _encoded, st.integers(0, 10**4))
    | st.builds(lambda value, at, byte: value[: at % len(value)] + byte + value[at % len(value) :], _encoded,
                st.integers(0, 10**4), st.binary(min_size=1, max_size=1))
    | _encoded.map(lambda value: value + value)
    | st.integers(1, 20_000).map(lambda depth: b'{"a":' * depth)
    | st.sampled_from([b'{"title":"' + b"x" * 1_000_000 + b'"}'])
)  # fmt: skip


def sample(count: int) -> list[bytes]:
    """About `count` of `values`, the same in each run: for what is too slow to be asked for one at a time."""
    drawn: list[bytes] = []

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(values)
    def draw(value: bytes) -> None:
        drawn.append(value)

    draw()
    return drawn


def rejected(sent: dict[str, Any], arrival: dt.datetime) -> event.Rejected | None:
    """Why the contract rejects the event `sent`; None for a play."""
    try:
        event.parse_event(encode(sent, ascii_only=False), arrival)
    except event.Rejected as reject:
        return reject
    return None
