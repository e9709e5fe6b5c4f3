"""The transaction of a batch against a real PostgreSQL."""

import contextlib
import datetime as dt
import json
import random
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg2
import pyarrow as pa
import pytest

from music_streaming import event
from music_streaming.metrics import SHOWN
from music_streaming.offsets import (
    OffsetsMovedBackError,
    TopicRecreatedError,
    set_offsets,
    stored_offsets,
)
from music_streaming.table import Batch, Outcome, Rules, prepare_session, write
from music_streaming.testing.events import sample
from music_streaming.testing.postgres import Database

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
TOPIC, TOPIC_ID = "plays", "id-1"
TIME = pa.timestamp("us", tz="UTC")
ROWS = pa.schema(
    {
        "partition": pa.int32(),
        "offset": pa.int64(),
        "kafka_time": TIME,
        "fields": pa.struct(
            [(field.name, TIME if field.kind == "time" else pa.string()) for field in event.FIELDS]
        ),
        "value": pa.binary(),
        "value_length": pa.int32(),
    }
)


def play(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A play as sent; plays of the same number are duplicates."""
    return {
        "event_id": str(uuid.UUID(int=number)),
        "event_time": event.format_time(NOW - dt.timedelta(seconds=number % 100)),
        "source": "demo",
        "user_id": f"u{number % 7}",
        "title": f"Song {number % 5}",
        "artist": "Artist",
        "duration_ms": 1000,
        "listened_ms": 950,
        **changes,
    }


def rows(*events: Any, partition: int = 0, start: int = 0, fast: bool = True) -> pa.Table:
    """The query's output for events (or bytes, or None), at offsets from start."""
    made = []
    for offset, sent in enumerate(events, start):
        value = sent if sent is None or isinstance(sent, bytes) else json.dumps(sent).encode()
        row: dict[str, Any] = {
            "partition": partition,
            "offset": offset,
            "kafka_time": NOW,
            "value": value,
            "value_length": None if value is None else len(value),
        }
        if isinstance(sent, dict) and fast:
            texts = {
                name: text if isinstance(text, str) else json.dumps(text)
                for name, text in sent.items()
                if text is not None
            }
            row |= {"fields": texts | {"event_time": event.parse_time(sent["event_time"])}, "value": None}
        made.append(row)
    return pa.Table.from_pylist(made, ROWS)


def batch(*tables: pa.Table, expected: dict[int, int] | None = None, topic_id: str = TOPIC_ID) -> Batch:
    return Batch(TOPIC, topic_id, pa.concat_tables(tables), expected or {}, NOW)


@pytest.fixture
def writer(database: Database) -> Iterator[Any]:
    with contextlib.closing(database.connect()) as connection:
        prepare_session(connection)
        yield connection


def exact(database: Database) -> int:
    """How many plays are accepted; fails unless every side of the equality says so."""
    # As the product reads: planned and read by one snapshot, lest a partition made in between be missed.
    one_look = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT source, accepted, exact, e::text "
    found = database.rows(f"{one_look} FROM ingest_exactness AS e")
    assert [row[3] for row in found if not row[2]] == []
    state = database.rows("SELECT records, accepted + duplicates + rejected + tombstones FROM ingest_state")
    assert all(records == parts for records, parts in state), state
    return sum(row[1] for row in found)


def test_one_batch(database: Database, writer: Any) -> None:
    outcome = write(writer, batch(rows(*(play(number) for number in range(50)), b"{", None)), Rules())
    assert (outcome.records, outcome.accepted, outcome.rejected, outcome.tombstones) == (52, 50, 1, 1)
    assert outcome.next_offsets == {0: 52}
    assert outcome.watermark == NOW - dt.timedelta(minutes=10)
    assert exact(database) == 50
    columns = "streams, completions, skips, likes, listened_ms, duration_ms"
    sums = ", ".join(f"sum({name})" for name in columns.split(", "))
    for table in (table.name for table in SHOWN):
        assert database.rows(f"SELECT {sums} FROM {table}") == [(50, 50, 0, 0, 47_500, 50_000)]
        listeners = database.value(f"SELECT round(hll_cardinality(hll_union_agg(listeners))) FROM {table}")
        assert listeners == 7
    stored = database.rows("SELECT records, accepted, rejected, tombstones, watermark FROM ingest_batches")
    assert stored == [(52, 50, 1, 1, outcome.watermark)]
    assert database.value("SELECT count(*) FROM stream_events JOIN ingest_batches USING (ingested_at)") == 50


def test_both_paths_store_alike(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1, title="e\u0301 🎵", genre="rock"))), Rules())
    write(writer, batch(rows(play(2, title="e\u0301 🎵", genre="rock"), start=1, fast=False)), Rules())
    names = [name for name in event.PLAY_COLUMNS if name not in ("event_id", "event_time", "user_id")]
    one, other = database.rows(f"SELECT {', '.join(names)} FROM stream_events")
    assert one == other
    assert database.rows("SELECT title, length(title) FROM content_performance_metrics") == [("é 🎵", 3)]


def test_duplicates_within_and_across_batches(database: Database, writer: Any) -> None:
    first = write(writer, batch(rows(play(1), play(1), play(2))), Rules())
    second = write(writer, batch(rows(play(2), play(3), play(1), start=3)), Rules())
    assert (first.accepted, first.duplicates, second.accepted, second.duplicates) == (2, 1, 1, 2)
    assert exact(database) == 3
    assert database.rows("SELECT accepted, duplicates FROM ingest_totals WHERE source = 'demo'") == [(3, 3)]


def test_a_real_play_counts_once_whichever_way_it_came_first(database: Database, writer: Any) -> None:
    later = event.format_time(NOW - dt.timedelta(days=1))
    sent = [
        play(1, source="scrobble"),
        play(1, source="import"),
        play(1, source="scrobble", event_time=later),
        play(2, source="import"),
    ]
    first = write(writer, batch(rows(*sent)), Rules())
    second = write(writer, batch(rows(play(2, source="scrobble"), start=4)), Rules())
    assert (first.accepted, first.duplicates, second.accepted, second.duplicates) == (2, 2, 0, 1)
    assert exact(database) == 2
    found = database.rows("SELECT source, accepted, duplicates FROM ingest_totals ORDER BY source")
    assert found == [("demo", 0, 0), ("import", 1, 1), ("scrobble", 1, 2)]


def test_flaws_are_counted_by_field_and_reason_once(database: Database, writer: Any) -> None:
    flawed = [play(1, country="XX", liked="often"), play(2, country="YY"), play(3)]
    again = batch(rows(*flawed), rows(play(4, duration_ms=0), start=3, fast=False))
    for _ in range(2):
        write(writer, again, Rules())
    assert database.rows("SELECT field, reason, plays FROM ingest_flaw_totals ORDER BY field") == [
        ("country", "not_in_vocabulary", 2),
        ("duration_ms", "out_of_range", 1),
        ("liked", "wrong_type", 1),
    ]
    assert exact(database) == 4


def test_replay_changes_nothing(database: Database, writer: Any) -> None:
    again = batch(rows(play(1), b"x", None))
    write(writer, again, Rules())
    before = database.rows("SELECT * FROM ingest_state, ingest_offsets, ingest_totals, ingest_reject_totals")
    assert write(writer, again, Rules()) == Outcome(next_offsets={0: 3})
    after = database.rows("SELECT * FROM ingest_state, ingest_offsets, ingest_totals, ingest_reject_totals")
    assert before == after


def test_overlap_takes_only_what_is_new(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1), play(2))), Rules())
    outcome = write(writer, batch(rows(play(2), play(3), b"y", start=1)), Rules())
    assert (outcome.records, outcome.accepted, outcome.duplicates, outcome.rejected) == (2, 1, 0, 1)
    assert exact(database) == 3


def test_two_drivers_at_once(database: Database) -> None:
    """Both read the same records, each cut into other batches."""
    values = [play(number // 2 * 2) if number % 10 else b"bad" for number in range(600)]
    errors: list[Exception] = []

    def drive(seed: int) -> None:
        chance, offset = random.Random(seed), 0
        try:
            with contextlib.closing(database.connect()) as connection:
                prepare_session(connection)
                while offset < len(values):
                    size = chance.randint(1, 60)
                    part = rows(*values[offset : offset + size], start=offset)
                    write(connection, batch(part, expected={0: offset}), Rules())
                    offset += size
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=drive, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    distinct = {value["event_id"] for value in values if isinstance(value, dict)}
    assert exact(database) == len(distinct)
    assert database.value("SELECT count(*) FROM rejected_events") == 60
    assert database.rows("SELECT records, rejected FROM ingest_state") == [(600, 60)]


def test_hole_in_a_compacted_topic_is_written_down(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1), start=0)), Rules())
    holes = replace(batch(rows(play(2), start=4), rows(b"z", start=6)), compacted=True)
    assert write(writer, holes, Rules()).gaps == ((0, 1, 4), (0, 5, 6))
    gaps = database.rows("SELECT from_offset, to_offset, cause FROM ingest_gaps ORDER BY 1")
    assert gaps == [(1, 4, "hole"), (5, 6, "hole")]
    assert database.value("SELECT control FROM ingest_state") == 0


def test_offsets_of_transactions_are_no_loss(database: Database, writer: Any) -> None:
    between = write(writer, batch(rows(play(1), start=0), rows(play(2), start=4)), Rules())
    assert (between.gaps, between.next_offsets) == ((), {0: 5})
    behind = replace(batch(rows(play(3), start=5)), ends={0: 8, 1: 2})
    assert write(writer, behind, Rules()).next_offsets == {0: 8, 1: 2}
    # A batch of nothing else, and read again.
    nothing = replace(batch(rows()), ends={0: 9, 1: 2})
    for _ in range(2):
        outcome = write(writer, nothing, Rules())
        assert (outcome.records, outcome.next_offsets) == (0, {0: 9, 1: 2})
    assert database.rows("SELECT records, control FROM ingest_state") == [(3, 3 + 2 + 2 + 1)]
    assert database.value("SELECT count(*) FROM ingest_gaps") == 0
    assert exact(database) == 3


def test_start_on_a_log_that_was_shortened(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1), play(2)), rows(play(3), partition=1)), Rules())
    shortened = set_offsets(writer, TOPIC, TOPIC_ID, stored_offsets(writer, TOPIC), {0: 1, 1: 0})
    assert shortened == {0: 2, 1: 1}
    # The record that was not lost is read again.
    again = batch(rows(play(2), play(4), start=1), rows(play(5), partition=1))
    assert write(writer, again, Rules()).accepted == 2
    assert database.rows("SELECT records, rewound FROM ingest_state") == [(6, 2)]
    assert database.value("SELECT sum(next_offset) FROM ingest_offsets") == 3 + 1
    gaps = database.rows("SELECT partition, from_offset, to_offset, cause FROM ingest_gaps ORDER BY 1")
    assert gaps == [(0, 2, None, "shortened"), (1, 1, None, "began_anew")]
    assert exact(database) == 5


def test_partitions_have_their_own_offsets(writer: Any) -> None:
    write(writer, batch(rows(play(1)), rows(play(2), play(3), partition=3)), Rules())
    stored = stored_offsets(writer, TOPIC)
    assert stored is not None
    assert (stored.topic_id, stored.next_offsets) == (TOPIC_ID, {0: 1, 3: 2})
    assert stored.newest_kafka_times == {0: NOW, 3: NOW}


def test_other_topic_of_the_same_name_is_refused(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    with pytest.raises(TopicRecreatedError, match="id id-2"):
        write(writer, batch(rows(play(2), start=1), topic_id="id-2"), Rules())
    assert exact(database) == 1


def test_restored_database_is_noticed(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    with pytest.raises(OffsetsMovedBackError, match="found next offset 1"):
        write(writer, batch(rows(play(2), start=9), expected={0: 9}), Rules())
    assert exact(database) == 1


def test_start_on_a_recreated_topic(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1), play(2))), Rules())
    set_offsets(writer, TOPIC, "id-2", stored_offsets(writer, TOPIC), {0: 0, 1: 0})
    write(writer, batch(rows(play(3), b"bad"), topic_id="id-2"), Rules())
    assert exact(database) == 3
    gaps = database.rows("SELECT topic_id, from_offset, to_offset, cause FROM ingest_gaps")
    assert gaps == [("id-1", 2, None, "topic_recreated")]


def test_start_behind_what_retention_deleted(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    before = stored_offsets(writer, TOPIC)
    set_offsets(writer, TOPIC, TOPIC_ID, before, {0: 5})
    assert database.rows("SELECT from_offset, to_offset, cause FROM ingest_gaps") == [(1, 5, "retention")]
    with pytest.raises(OffsetsMovedBackError, match="changed by another reader"):
        set_offsets(writer, TOPIC, TOPIC_ID, before, {0: 7})


def test_late_is_counted_in_its_window_and_the_watermark_never_goes_back(
    database: Database, writer: Any
) -> None:
    old = event.format_time(NOW - dt.timedelta(days=400))
    first = write(writer, batch(rows(play(1), play(2, event_time=old, source="import"))), Rules())
    assert first.late == 0
    second = write(writer, batch(rows(play(3, event_time=old, source="import"), start=2)), Rules())
    assert (second.late, second.watermark) == (1, first.watermark)
    assert exact(database) == 3
    assert database.rows("SELECT source, late FROM ingest_totals WHERE late > 0") == [("import", 1)]
    assert (
        database.value(
            "SELECT sum(streams) FROM geographic_metrics WHERE window_start < now() - interval '1 y'"
        )
        == 2
    )
    finals = "SELECT bool_and(window_is_final(window_start + interval '5 min')) FROM geographic_metrics WHERE source = %s"
    assert [database.value(finals, (source,)) for source in ("import", "demo")] == [True, False]


def test_demo_partition_per_utc_day(database: Database, writer: Any) -> None:
    midnight = NOW.replace(hour=0, minute=0, second=0) - dt.timedelta(days=3)
    moments = [midnight - dt.timedelta(milliseconds=1), midnight, midnight + dt.timedelta(hours=23)]
    events = [play(n, event_time=event.format_time(moment)) for n, moment in enumerate(moments)]
    write(writer, batch(rows(*events)), Rules())
    found = database.rows(
        "SELECT tableoid::regclass::text, count(*) FROM stream_events GROUP BY 1 ORDER BY 1",
        role="music_owner",
    )
    days = [f"stream_events_demo_{moment:%Y%m%d}" for moment in (midnight - dt.timedelta(days=1), midnight)]
    assert found == [(days[0], 1), (days[1], 2)]


def test_new_partition_does_not_wait_for_readers(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    with contextlib.closing(database.connect("superset_reader")) as reader:
        reader.cursor().execute("SELECT count(*) FROM stream_events")
        writer.cursor().execute("SET lock_timeout = '2s'")
        writer.commit()
        earlier = event.format_time(NOW - dt.timedelta(days=5))
        write(writer, batch(rows(play(2, event_time=earlier), start=1)), Rules())
    assert exact(database) == 2


def test_rejects_are_kept_as_they_came_and_bounded(database: Database, writer: Any) -> None:
    nasty = [b"\x00\xff\\x", b"a" * 70_000, json.dumps(play(1, title="a\0b")).encode(), b'"\n\\."']
    write(writer, batch(rows(*nasty)), Rules())
    found = database.rows("SELECT reason, field, raw, raw_length FROM rejected_events ORDER BY kafka_offset")
    assert [(reason, field, bytes(raw), length) for reason, field, raw, length in found] == [
        ("not_utf8", None, nasty[0], 4),
        ("too_long", None, b"a" * 8192, 70_000),
        ("nul", "title", nasty[2], len(nasty[2])),
        ("not_json", None, nasty[3], 5),
    ]
    write(writer, batch(rows(*[b"{"] * 20, start=4)), Rules(rejects_kept=5))
    assert database.rows("SELECT count(*), min(kafka_offset) FROM rejected_events") == [(5, 19)]
    totals = dict(database.rows("SELECT reason, rejected FROM ingest_reject_totals"))
    assert totals == {"not_utf8": 1, "too_long": 1, "nul": 1, "not_json": 21}


def test_whatever_comes_is_written_and_adds_up(database: Database, writer: Any) -> None:
    values = sample(1000)
    written = 0
    for start in range(0, len(values), 100):
        # Tombstones, duplicates within the batch, and across batches.
        sent = [*values[start : start + 100], None, *values[start : start + 100 : 3], *values[:start:50]]
        outcome = write(writer, batch(rows(*sent, start=written)), Rules())
        written += len(sent)
        counted = outcome.accepted + outcome.duplicates + outcome.rejected + outcome.tombstones
        assert counted == outcome.records == len(sent)
    assert exact(database) > 50
    assert database.value("SELECT sum(duplicates) FROM ingest_state") > 50
    assert database.value("SELECT max(length(raw)) FROM rejected_events") == event.RAW_LIMIT


def test_text_survives_byte_by_byte(database: Database, writer: Any) -> None:
    titles = [
        "👩‍👩‍👧‍👦",
        "مرحبا",
        "Robert'); DROP--",
        "=1+1",
        'a"b,c',
        "x\n\\.\ny",
        "\\N",
        "a\\b",
        "\u2028",
        "東京事変 🎵",
    ]
    events = [play(n, title=f"<{title}>") for n, title in enumerate(titles)]
    write(writer, batch(rows(*events)), Rules())
    found = database.rows("SELECT title FROM stream_events ORDER BY kafka_offset")
    assert [title for (title,) in found] == [f"<{title}>" for title in titles]
    assert database.value("SELECT length(title) FROM stream_events WHERE kafka_offset = 9") == 8


def test_longest_texts_fit_the_index(database: Database, writer: Any) -> None:
    chance = random.Random(1)
    texts = {
        name: "".join(
            chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=limit)
        )
        for name, limit in (
            ("title", 1024),
            ("artist", 1024),
            ("genre", 128),
            ("song_id", 128),
            ("user_id", 128),
        )
    }
    write(writer, batch(rows(play(1, **texts))), Rules())
    assert exact(database) == 1


def test_sums_beyond_32_bits(database: Database, writer: Any) -> None:
    events = [play(n, listened_ms=100_000_000, duration_ms=100_000_000) for n in range(100)]
    write(writer, batch(rows(*events)), Rules())
    assert database.value("SELECT sum(listened_ms) FROM geographic_metrics") == 10_000_000_000


def test_failure_leaves_nothing_behind(database: Database, writer: Any) -> None:
    write(writer, batch(rows(play(1))), Rules())
    database.rows("ALTER TABLE ingest_batches ADD CONSTRAINT no_more CHECK (records < 3)", role="music_owner")
    with pytest.raises(psycopg2.errors.CheckViolation):
        write(writer, batch(rows(play(2), play(3), b"{", start=1)), Rules())
    assert exact(database) == 1
    assert database.value("SELECT next_offset FROM ingest_offsets") == 1
    assert database.value("SELECT count(*) FROM rejected_events") == 0
    assert write(writer, batch(rows(play(2), start=1)), Rules()).accepted == 1
