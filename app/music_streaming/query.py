"""The query, pure DataFrame -> DataFrame: Kafka records in, one row for every record out.

No record is dropped, since its offset has to be accounted for. A row holds either a play, checked and
normalised, or, where anything about it is in doubt, its bytes: event.judge has the last word on those
(rows.py asks it). So the plan stays small, which counts, as Spark plans it anew for each batch, and the law
is written once. No state, no shuffle, no Python worker.

No withWatermark either: nothing here waits for a window to end, and late plays count in the window that they
belong to. The watermark is a column of PostgreSQL (ingest_state): the newest event_time of an accepted play
less the delay of the settings. It outlives restarts and never goes back, moves in the transaction of the
batch, marks a play behind it as late, and tells which windows are final.
"""

from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf
from pyspark.sql import types as st

from music_streaming import event
from music_streaming.country import REGIONS, UNKNOWN_REGION, codes_of
from music_streaming.metrics import WINDOWS

# What the query needs of its session, whoever makes it.
SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # As one stage the generated method is too large for the JIT compiler: a quarter slower.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

_TYPES = {"integer": st.LongType(), "boolean": st.BooleanType()}
_CORRUPT = "_corrupt"
_SCHEMA = st.StructType(
    [st.StructField(field.name, _TYPES.get(field.kind, st.StringType())) for field in event.FIELDS]
    + [st.StructField(_CORRUPT, st.StringType())]
)
# Spark's JSON reader is more lenient than JSON.
_JSON = {
    "mode": "PERMISSIVE",
    "columnNameOfCorruptRecord": _CORRUPT,
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
}
_TEXTS = [field for field in event.FIELDS if field.kind in ("id", "text", "name")]
_LINES = [field.name for field in event.FIELDS if field.kind in ("id", "text", "name", "vocabulary")]
# JSON of one flat object in printable ASCII without escapes. Matched from the start it costs next to nothing,
# while each search for a pattern costs a third of reading the JSON.
_PLAIN = r"^\{[ -\[\]-z|~]*\}$"
# What makes any other JSON text doubtful.
_DOUBTFUL = (
    # Something behind the first object, which is all that Spark reads, or an object inside it.
    r"\}(?s:.)",
    # Escapes of control characters, white space and surrogates.
    r"\\(?:[bfnrt]|u(?:00[018]|[dD][89a-fA-F]|00[aA]0|1680|20|3000))",
    # The same as they are.
    r"[^ -~](?<=[\x00-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])",
)
# All texts of an event, a line each: one is empty, begins or ends with a blank, or may be a JSON value of
# another type, which Spark reads as text.
_DOUBTFUL_LINE = r" \n|\n(?:[ \n\[{]|true\n|false\n|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\n)"
_TIME = r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?Z$"
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
# NFC makes a text up to three times as long.
_NFC_GROWTH = 3


def plays(records: DataFrame, future_tolerance_seconds: int = 300) -> DataFrame:
    """Judge and normalise records of Spark's Kafka source; as many rows out as in.

    Columns out:
      partition int, offset bigint
      kafka_time timestamp   when the broker got it; where the topic does not say so, now
      play struct            event.PLAY_COLUMNS as stored, but for NFC and a song_id where the event has none;
                             NULL where in doubt
      value binary           the bytes where in doubt, at most event.MAX_BYTES + 1; NULL for a tombstone
      value_length int       bytes of the whole value
      event_time, metric_window, content_window timestamp   the latter two are starts; of use with play only
      listener bigint        xxhash64 of user_id as sent
    """
    judged = (
        records.select(
            "partition",
            "offset",
            sf.when(sf.col("timestampType") == 1, sf.col("timestamp"))
            .otherwise(sf.current_timestamp())
            .alias("kafka_time"),
            "value",
            sf.col("value").cast("string").alias("text"),
        )
        .withColumn("e", sf.from_json("text", _SCHEMA, _JSON))
        .withColumn(
            "time", sf.when(sf.col("e.event_time").rlike(_TIME), sf.col("e.event_time")).try_cast("timestamp")
        )
        .withColumn("doubt", _in_doubt(future_tolerance_seconds))
    )
    rows = judged.select(
        "partition",
        "offset",
        "kafka_time",
        sf.when(~sf.col("doubt"), sf.struct(*_stored())).alias("play"),
        sf.when(sf.col("doubt"), sf.substring("value", 1, event.MAX_BYTES + 1)).alias("value"),
        sf.octet_length("value").alias("value_length"),
        sf.xxhash64("e.user_id").alias("listener"),
        # window() leaves out rows without a time.
        sf.when(sf.col("doubt"), sf.lit(event.FIRST_TIME)).otherwise(sf.col("time")).alias("event_time"),
    )
    # One by one: two windows in one step would multiply the rows.
    for name, width in WINDOWS.items():
        rows = rows.withColumn(name, _start(width.total_seconds()))
    return rows


def _start(seconds: float) -> Column:
    return sf.window("event_time", f"{seconds:.0f} seconds").getField("start")


def _in_doubt(future_tolerance_seconds: int) -> Column:
    text = sf.col("text")
    doubts = [
        sf.octet_length("value") > event.MAX_BYTES,
        ~sf.is_valid_utf8(text),
        ~text.rlike(_PLAIN) & reduce(or_, [text.rlike(pattern) for pattern in _DOUBTFUL]),
        sf.concat_ws("\n", sf.lit(""), *(f"e.{name}" for name in _LINES), sf.lit("")).rlike(_DOUBTFUL_LINE),
        sf.col(f"e.{_CORRUPT}").isNotNull(),
        ~sf.col("e.event_id").rlike(_UUID),
        ~sf.col("e.source").isin(*event.SOURCES),
        sf.col("time") < sf.lit(event.FIRST_TIME),
        sf.col("time") > sf.col("kafka_time") + sf.make_interval(secs=sf.lit(future_tolerance_seconds)),
        *(~sf.col(f"e.{name}").between(least, event.MAX_MS) for name, least in event.INTEGERS.items()),
        *(
            sf.octet_length(f"e.{field.name}")
            > (field.limit if field.kind == "id" else field.limit // _NFC_GROWTH)
            for field in _TEXTS
        ),
    ]
    needed = ("e.event_id", "time", "e.source", "e.user_id", "e.title", "e.artist")
    missing = [sf.col(name).isNull() for name in needed]
    # Each doubt is NULL where its field is missing, and NULL is no doubt.
    return sf.coalesce(reduce(or_, missing + doubts), sf.lit(False))


def _stored() -> list[Column]:
    columns = {field.name: sf.col(f"e.{field.name}") for field in event.FIELDS}
    columns["event_time"] = sf.col("time")
    for field in event.FIELDS:
        sent = columns[field.name]
        if field.kind == "vocabulary" and field.default is not None:
            word = sf.upper(sent) if field.name == "country" else sf.lower(sent)
            columns[field.name] = sf.when(word.isin(*field.vocabulary), word).otherwise(field.default)
        elif field.default is not None:
            columns[field.name] = sf.when(sf.lower(sent) != field.default, sent).otherwise(field.default)
    heard_enough = columns["listened_ms"] * 10 >= columns["duration_ms"] * 9
    columns["completed"] = sf.coalesce(columns["completed"], heard_enough)
    code = sf.upper("e.country")
    regions = [sf.when(code.isin(*codes_of(region)), region) for region in REGIONS]
    # Nullable, as pyspark cannot hand over a struct that is NULL with a field that may not be.
    columns["region"] = sf.when(sf.col("e").isNotNull(), sf.coalesce(*regions, sf.lit(UNKNOWN_REGION)))
    return [columns[name].alias(name) for name in event.PLAY_COLUMNS]
