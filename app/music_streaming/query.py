"""The query, pure DataFrame -> DataFrame: Kafka records in, one row for every record out.

No record is dropped, since its offset has to be accounted for: a row is an accepted play, a reject with its
reason, or a tombstone. No state, no shuffle, no Python worker. Rules and their words are in event.py.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf
from pyspark.sql import types as st

from music_streaming import event
from music_streaming.country import REGIONS, UNKNOWN_CODE, UNKNOWN_REGION, codes_of

TOMBSTONE = "tombstone"

METRIC_WINDOW = "5 minutes"
CONTENT_WINDOW = "1 hour"

_TYPES = {"integer": st.LongType(), "boolean": st.BooleanType()}
_CORRUPT = "_corrupt"
_TYPED = st.StructType(
    [st.StructField(field.name, _TYPES.get(field.kind, st.StringType())) for field in event.FIELDS]
    + [st.StructField(_CORRUPT, st.StringType())]
)
_TYPED_NAMES = [field.name for field in event.FIELDS if field.kind in _TYPES]
_LOOSE = st.StructType([st.StructField(field.name, st.StringType()) for field in _TYPED.fields])
# Spark's JSON reader is more lenient than JSON.
_STRICT = {
    "mode": "PERMISSIVE",
    "columnNameOfCorruptRecord": _CORRUPT,
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
}
# Printable ASCII without a backslash: no white space but blanks, no escapes.
_PLAIN = r"^[ -\[\]-~]*$"
_NUMBER = r"^-?[0-9][-+.0-9eE]*$"
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# An even number of backslashes before \u: else the backslash itself is escaped.
_LONE_SURROGATE = rf"(?<!\\)(?:\\\\)*(?:{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW})"
# NFC makes a text up to three times as long.
_NFC_GROWTH = 3


def plays(
    records: DataFrame, future_tolerance_seconds: int = 300, watermark_delay_seconds: int = 600
) -> DataFrame:
    """Judge and normalise records of Spark's Kafka source; as many rows out as in.

    Columns out:
      partition int, offset bigint, kafka_time timestamp
      reason string   NULL = accepted; else a key of event.REASONS, or `tombstone`
      field string    the field to blame, where there is one
      raw binary      the first 8 KiB: of rejects, and of plays whose texts might be too long after NFC
      raw_length int  bytes of the whole value
      play struct     NULL unless accepted: the columns of stream_events that come from the event, song_id still
                      NULL where the event has none; texts not yet NFC (table.py does that, Spark cannot)
      event_time timestamp, listener bigint (xxhash64 of user_id),
      metric_window, content_window timestamp (starts of the windows the play counts in)
    """
    parsed = (
        records.select(
            "partition", "offset", "value", "timestamp", "timestampType",
            sf.try_validate_utf8(sf.col("value").cast("string")).alias("text"),
        )
        .withColumn("plain", sf.col("text").rlike(_PLAIN))
        .withColumn("e", sf.from_json("text", _TYPED, _STRICT))
        # Only what did not parse is parsed again, to tell a wrong type from no JSON at all.
        .withColumn("loose", sf.when(_corrupt("e"), sf.from_json("text", _LOOSE, _STRICT)))
    )  # fmt: skip
    judged = (
        parsed.select("*", *(_trim(field.name) for field in event.FIELDS if field.name not in _TYPED_NAMES))
        .select("*", *_normalised())
        .withColumn("verdict", _verdict(future_tolerance_seconds))
        .withColumn("accepted", sf.col("verdict").isNull())
    )
    return (
        judged.select(
            "partition",
            "offset",
            sf.col("timestamp").alias("kafka_time"),
            sf.col("verdict.reason").alias("reason"),
            sf.col("verdict.field").alias("field"),
            sf.when(_keeps_raw(), sf.substring("value", 1, event.RAW_LIMIT)).alias("raw"),
            sf.octet_length("value").alias("raw_length"),
            sf.when(sf.col("accepted"), sf.struct(*PLAY_COLUMNS)).alias("play"),
            sf.when(sf.col("accepted"), sf.col("event_time")).alias("event_time"),
            sf.when(sf.col("accepted"), sf.xxhash64("user_id")).alias("listener"),
        )
        .withWatermark("event_time", f"{watermark_delay_seconds} seconds")
        # window() leaves out rows without a time, and Spark allows one of them at a time.
        .withColumn("metric_window", sf.window(_time_or_arrival(), METRIC_WINDOW).getField("start"))
        .withColumn("content_window", sf.window(_time_or_arrival(), CONTENT_WINDOW).getField("start"))
    )


PLAY_COLUMNS = (
    "event_id", "event_time", "source", "user_id", "session_id", "song_id", "title", "artist", "album", "genre",
    "duration_ms", "listened_ms", "skipped", "liked", "completed", "subscription_type", "age_group", "country",
    "region", "device_type", "os", "player", "reason_start", "reason_end",
)  # fmt: skip


def _time_or_arrival() -> Column:
    return sf.coalesce("event_time", "kafka_time")


def _corrupt(struct: str) -> Column:
    return sf.col(struct).isNull() | sf.col(f"{struct}.{_CORRUPT}").isNotNull()


def _trim(name: str) -> Column:
    # Trimming by a list of characters is slow, and hardly ever needed.
    text = sf.col(f"e.{name}")
    return (
        sf.when(sf.col("plain"), sf.trim(text))
        .otherwise(sf.trim(text, sf.lit(event.WHITESPACE)))
        .alias(f"sent_{name}")
    )


def _trimmed(name: str) -> Column:
    text = sf.col(f"sent_{name}")
    return sf.when(text != "", text)


def _vocabulary(name: str) -> Column:
    words = next(field.vocabulary for field in event.FIELDS if field.name == name)
    text = sf.lower(sf.col(f"sent_{name}"))
    return sf.when(text.isin(*words), text).otherwise(event.UNKNOWN)


def _short(name: str) -> Column:
    limit = next(field.limit or 0 for field in event.FIELDS if field.name == name)
    text = sf.col(f"sent_{name}")
    known = (text != "") & (sf.lower(text) != event.UNKNOWN) & (sf.octet_length(text) <= limit)
    return sf.when(known & (sf.col("plain") | ~sf.contains(text, sf.lit("\0"))), text).otherwise(
        event.UNKNOWN
    )


def _time() -> Column:
    text = sf.upper("sent_event_time")
    moment = sf.when(text.rlike(event.TIME_PATTERN), text.try_cast("timestamp"))
    return sf.timestamp_millis(sf.unix_millis(moment))


def _normalised() -> list[Column]:
    """The columns of the play, each NULL where the event says nothing of use."""
    columns = {field.name: _trimmed(field.name) for field in event.TEXTS}
    columns |= {name: _vocabulary(name) for name in ("subscription_type", "age_group", "device_type")}
    columns |= {name: _short(name) for name in ("os", "player")}
    genre = sf.col("sent_genre")
    columns["genre"] = sf.when((genre != "") & (sf.lower(genre) != event.UNKNOWN), genre).otherwise(
        event.UNKNOWN
    )
    columns["event_id"] = sf.lower("sent_event_id")
    columns["event_time"] = _time()
    columns["source"] = sf.col("e.source")
    for name, least in event.INTEGERS.items():
        number = sf.col(f"e.{name}")
        # NULL outside the limits, so that nothing below can overflow: Spark's ANSI mode would stop the job.
        columns[name] = sf.when(number.between(least, event.MAX_MS), number)
    columns |= {name: sf.col(f"e.{name}") for name in ("skipped", "liked")}
    heard_enough = columns["listened_ms"] * 10 >= columns["duration_ms"] * 9
    columns["completed"] = sf.coalesce(sf.col("e.completed"), heard_enough)
    code = sf.upper("sent_country")
    regions = {region: codes_of(region) for region in (*REGIONS, UNKNOWN_REGION)}
    every_code = [code for codes in regions.values() for code in codes]
    columns["country"] = sf.when(code.isin(*every_code), code).otherwise(UNKNOWN_CODE)
    named = [sf.when(code.isin(*regions[region]), region) for region in REGIONS]
    columns["region"] = sf.coalesce(*named, sf.lit(UNKNOWN_REGION))
    return [columns[name].alias(name) for name in PLAY_COLUMNS]


def _reject(when: Column, reason: str, field: Column | str | None = None) -> Column:
    column = field if isinstance(field, Column) else sf.lit(field).cast("string")
    return sf.when(when, sf.struct(sf.lit(reason).alias("reason"), column.alias("field")))


def _verdict(future_tolerance_seconds: int) -> Column:
    """The first rule broken, as struct(reason, field); NULL = none. The order is that of event.check."""
    rejects = [
        _reject(sf.col("value").isNull(), TOMBSTONE),
        _reject(sf.col("text").isNull(), "not_utf8"),
        _reject(_no_single_object(), "not_json"),
        _reject(
            ~sf.col("plain") & sf.contains("text", sf.lit("\\u")) & sf.col("text").rlike(_LONE_SURROGATE),
            "lone_surrogate",
        ),
        *_wrong_types(),
        *(
            _reject(sf.coalesce(sf.col(f"sent_{field.name}"), sf.lit("")) == "", "missing", field.name)
            for field in event.FIELDS
            if field.required
        ),
        _reject(~sf.col("event_id").rlike(event.UUID_PATTERN), "malformed", "event_id"),
        _reject(sf.col("event_time").isNull(), "malformed", "event_time"),
        _reject(~sf.col("source").isin(*event.SOURCES), "unknown_source", "source"),
        *(
            _reject(sf.col(f"e.{name}").isNotNull() & sf.col(name).isNull(), "out_of_range", name)
            for name in event.INTEGERS
        ),
        *_bad_texts(),
        _reject(sf.col("event_time") < sf.lit(event.FIRST_TIME), "out_of_range", "event_time"),
        _reject(_in_future(future_tolerance_seconds), "in_future", "event_time"),
    ]
    return sf.coalesce(*rejects)


def _no_single_object() -> Column:
    # Spark reads the first JSON value and ignores what follows. That something follows can be only if a brace
    # comes before the end; whether it is so, the stricter reader of variants tells.
    text = sf.rtrim("text")
    more = sf.instr(text, "}") < sf.length(text)
    return (
        sf.col("e").isNull()
        | (sf.col("loose").isNotNull() & _corrupt("loose"))
        | (sf.col("e." + _CORRUPT).isNotNull() & sf.col("loose").isNull())
        | (more & sf.try_parse_json("text").isNull())
    )


def _wrong_types() -> list[Column]:
    typed = [
        (
            field.name,
            sf.col("loose").isNotNull()
            & sf.col(f"e.{field.name}").isNull()
            & sf.col(f"loose.{field.name}").isNotNull(),
        )
        for field in event.FIELDS
        if field.kind in _TYPES
    ]
    return [
        *(_reject(bad, "wrong_type", name) for name, bad in typed),
        *(_reject(_not_a_text(field.name), "wrong_type", field.name) for field in event.TEXTS),
    ]


def _not_a_text(name: str) -> Column:
    # from_json turns any value into text. Asking for the true type costs a second parse: only in doubt.
    found = sf.schema_of_variant(sf.try_variant_get(sf.try_parse_json("text"), f"$.{name}", "variant"))
    text = sf.col(f"e.{name}")
    number = (text >= "-") & (text < ":") & text.rlike(_NUMBER)
    other = text.isin("true", "false") | sf.startswith(text, sf.lit("[")) | sf.startswith(text, sf.lit("{"))
    return (number | other) & (found != "STRING")


def _bad_texts() -> list[Column]:
    may_hold_nul = ~sf.col("plain") & sf.contains("text", sf.lit("\\u0000"))
    nuls = [
        _reject(may_hold_nul & sf.contains(field.name, sf.lit("\0")), "nul", field.name)
        for field in event.TEXTS
    ]
    longs = [
        _reject(
            sf.octet_length(field.name) > (field.limit or 0) * (_NFC_GROWTH if field.nfc else 1),
            "too_long",
            field.name,
        )
        for field in event.TEXTS
    ]
    return nuls + longs


def _in_future(tolerance_seconds: int) -> Column:
    # Judged by the broker's clock at arrival, so that a record read again days later gets the same verdict.
    arrival = sf.when(sf.col("timestampType") == 1, sf.col("timestamp")).otherwise(sf.current_timestamp())
    return sf.unix_millis("event_time") > sf.unix_millis(arrival) + tolerance_seconds * 1000


def _keeps_raw() -> Column:
    rejected = sf.col("verdict.reason").isNotNull() & (sf.col("verdict.reason") != TOMBSTONE)
    long = [
        sf.octet_length(field.name) > sf.lit((field.limit or 0) // _NFC_GROWTH)
        for field in event.TEXTS
        if field.nfc
    ]
    return rejected | reduce(
        lambda one, other: one | other, [sf.coalesce(check, sf.lit(False)) for check in long]
    )
