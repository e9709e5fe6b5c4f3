"""Whatever is in a file: no parser raises, and every row is a play that the job takes or has its reason."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from music_streaming import event
from music_streaming.imports.formats import FORMATS, recognise
from music_streaming.imports.plays import REASONS, Left, Play, Reading, moment, number
from music_streaming.imports.reading import LINE_LIMIT, json_lines, records
from music_streaming.testing import events

EXPORTS = Path(__file__).parent / "exports"
READING = Reading.at(events.NOW, ZoneInfo("America/New_York"))
FILES = sorted(path.name for path in EXPORTS.iterdir())
JSON = [name for name in FILES if name.endswith((".json", ".jsonl"))]
CSV = [name for name in FILES if name.endswith((".csv", ".log"))]
HEADLESS = {"lastfm_to_csv.csv", "rockbox.log"}
cells = (
    events.texts
    | events.numbers.map(str)
    | st.sampled_from(["", "0", "-1", "1e999", "nan", "inf", "1677657600"])
)
common = settings(max_examples=30, deadline=None)


def check(rows: list[Play | Left]) -> None:
    """Each row is a play that the contract takes, or has a reason; and both can be shown."""
    for row in rows:
        if isinstance(row, Left):
            assert row.reason in REASONS
            assert row.example.isprintable()
            continue
        sent = {
            "event_id": "00000000-0000-4000-8000-000000000000",
            "event_time": event.format_time(datetime.fromtimestamp(row.started_ms / 1000, UTC)),
            "source": "import",
            "user_id": "owner",
            "title": row.title,
            "artist": row.artist,
        }
        assert events.rejected(sent, events.NOW) is None
        for name in ("duration_ms", "listened_ms"):
            value = getattr(row, name)
            assert value is None or event.INTEGERS[name] <= value <= event.MAX_MS


def parse(name: str, content: bytes) -> list[Play | Left]:
    """The rows, by the parser of the untouched file."""
    with (EXPORTS / name).open("rb") as file:
        found = recognise(file)
    assert found
    return list(found[0].parse(io.BytesIO(content), READING, found[1]))


def spoil(value: Any, draw: Any) -> Any:
    """Replace some value within a row."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: spoil(value[key], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [spoil(value[0], draw), *value[1:]]
    return draw(events.json_values | events.times)


def replaced(document: Any, prefix: str, rows: list[Any]) -> Any:
    """The document with other rows at the path `prefix`."""
    if prefix == "":
        return document
    head, _, rest = prefix.partition(".")
    if head == "item":
        return rows if not rest else [replaced(document[0], rest, rows)]
    return document | {head: replaced(document[head], rest, rows)}


def first_rows(document: Any, prefix: str) -> list[Any]:
    for part in prefix.split(".")[:-1]:
        document = document[0] if part == "item" else document[part]
    return list(document)


@pytest.mark.parametrize("name", JSON)
@common
@given(data=st.data())
def test_rows_of_json_with_anything_in_them(name: str, data: st.DataObject) -> None:
    text = (EXPORTS / name).read_text()
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines()[:2]]
        spoilt = [
            spoil(data.draw(st.sampled_from(rows)), data.draw) for _ in range(data.draw(st.integers(1, 4)))
        ]
        content = b"\n".join(events.encode(row) for row in spoilt)
    else:
        with (EXPORTS / name).open("rb") as file:
            prefix = recognise(file)[1]  # type: ignore[index]
        document = json.loads(text)
        rows = first_rows(document, prefix)
        spoilt = [
            spoil(data.draw(st.sampled_from(rows)), data.draw) for _ in range(data.draw(st.integers(1, 4)))
        ]
        content = events.encode(replaced(document, prefix, spoilt))
    found = parse(name, content)
    check(found)
    # What no JSON parser can hold ends the file, with one row that says so.
    assert len(found) == len(spoilt) or (len(found) <= len(spoilt) and found[-1].reason == "broken")


@pytest.mark.parametrize("name", CSV)
@common
@given(data=st.data())
def test_rows_of_tables_with_anything_in_them(name: str, data: st.DataObject) -> None:
    lines = (EXPORTS / name).read_text().splitlines()
    delimiter = "\t" if name.endswith(".log") else ";" if name == "lastfmstats.csv" else ","
    at = 3 if name in ("rockbox.log", "librefm.csv") else 0
    head = lines[: at + (name not in HEADLESS)]
    rows = [list(row) for row in csv.reader(lines[len(head) : len(head) + 2], delimiter=delimiter)]
    spoilt = []
    for _ in range(data.draw(st.integers(1, 4))):
        row = list(data.draw(st.sampled_from(rows)))
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(cells)
        spoilt.append(row[: data.draw(st.integers(1, len(row)))])
    out = io.StringIO()
    if name == "rockbox.log":
        # The format has no quotes: a tab or the end of a line in a title is one.
        out.writelines(
            "\t".join("".join(c for c in cell if c not in "\t\r\n") for cell in row) + "\n" for row in spoilt
        )
    else:
        csv.writer(out, delimiter=delimiter).writerows(spoilt)
    content = "\n".join([*head, out.getvalue()]).encode(errors="surrogatepass")
    found = parse(name, content)
    check(found)
    blank = sum(not "".join(row).strip() or "".join(row).startswith("#") for row in spoilt)
    assert len(spoilt) - blank <= len(found) + sum(
        "\n" in cell or "\r" in cell for row in spoilt for cell in row
    )


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=300) | events.values)
@example(content=b"PK\x03\x04")
@example(content=b'[{"ts": 1}, ' + b"[" * 5_000)
@example(content=b'[{"ms_played": ' + b"9" * 10_000 + b"}]")
@example(content=b"a,b,\x00c\n\x00,,,,,\n")
@example(content=b'"' + b"x" * 200_000)
def test_bytes_of_any_kind(known: Any, content: bytes) -> None:
    check(list(known.parse(io.BytesIO(content), READING, known.prefix or "item")))
    recognise(io.BytesIO(content))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.binary(max_size=2), cut=st.booleans())
def test_a_file_with_a_stray_byte_or_broken_off(name: str, at: int, byte: bytes, cut: bool) -> None:
    whole = (EXPORTS / name).read_bytes()
    at %= len(whole)
    check(parse(name, whole[:at] + byte + (b"" if cut else whole[at:])))


def test_a_line_without_end_takes_no_memory() -> None:
    rows = list(json_lines(io.BytesIO(b'{"a": 1}\n' + b"x" * (3 * LINE_LIMIT) + b'\n{"a": 2}\n')))
    assert [row if isinstance(row, dict) else row.reason for row in rows] == [{"a": 1}, "malformed", {"a": 2}]
    assert next(records(io.BytesIO(b"a,b\n" + b"x" * (3 * LINE_LIMIT)))) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "read"),
    [("2023-03-01T08:00:00Z", 1_677_657_600_000), ("2023-03-01 09:00:00+01:00", 1_677_657_600_000), ("2023-03-01", 1_677_628_800_000),
     ("0001-01-01T00:00:00+14:00", None), ("9999-12-31T23:59:59-14:00", None), (5, None), (None, None), ("", None), ([], None)],
)  # fmt: skip
def test_a_moment_is_read_or_nothing(value: Any, read: float | None) -> None:
    found = moment(value)
    assert found == read or (read is None and found is not None and abs(found) > 6e13)


@pytest.mark.parametrize("value", [True, None, "x", [], {}, "nan", "inf", float("nan"), 10**400, "1" * 400])
def test_what_is_no_number_is_none(value: Any) -> None:
    assert number(value) is None
