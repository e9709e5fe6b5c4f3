"""The query, pure DataFrame -> DataFrame: Kafka records in, one row for every record out.

No record is dropped, since its offset has to be accounted for. Spark reads the JSON, which is the heavy part
and spreads over workers, and hands over the fields as text; rows.py reads each of them as the contract says.
A record that may be a reject, or whose JSON says more than those texts would, comes as its bytes instead, and
takes the slow path: event.parse_event. So the plan stays small, which counts, as Spark plans it anew for each
batch, and the contract is written once. No state, no shuffle, no Python worker.

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

# What the query needs of its session, whoever makes it.
SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

_CORRUPT = "_corrupt"
_SCHEMA = st.StructType([st.StructField(name, st.StringType()) for name in (*event.FIELD_NAMES, _CORRUPT)])
# Spark's JSON reader is more lenient than JSON.
_JSON = {
    "mode": "PERMISSIVE",
    "columnNameOfCorruptRecord": _CORRUPT,
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
}
# One flat object whose numbers are their own text, without half a surrogate pair or NUL. As senders write it:
# matched from its start it costs next to nothing. No group may repeat without a limit: each turn takes stack.
_ESCAPE = r'\\(?:["\\/bfnrt]|u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4})'
_STRING = rf'"[^"\\]*+(?:{_ESCAPE}[^"\\]*+){{0,64}}+"'
_VALUE = rf"{_STRING}|0|-?[1-9][0-9]{{0,17}}+|true|false|null"
_FLAT = rf'^\{{(?:\s?"[^"\\]*+":\s?(?:{_VALUE})(?:,|(?=\}}))){{0,64}}+\}}$'
# What keeps any other JSON text from the fast path: something behind the first object, which is all that
# Spark reads, or an object inside it; an escaped NUL; half of a surrogate pair, which Spark replaces.
_UNSAFE = r"\}(?s:.)|\\u(?:0000|[dD][89a-fA-F])"
# All texts of an event, a line each: one may be an object or a list, or a number that Spark has written anew.
_UNSAFE_LINE = r'\n(?:[\[{"]|-0\n|-?[0-9]+[.eE])'
_TIME = r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?Z$"
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
# Not missing, whatever is trimmed of it.
_VISIBLE = r"[!-~\p{L}\p{N}]"
# NFC makes a text up to three times as long.
_NFC_GROWTH = 3
_REQUIRED_TEXTS = [field for field in event.FIELDS if field.required and field.kind in ("id", "text")]


def plays(records: DataFrame, future_tolerance_seconds: int = 300) -> DataFrame:
    """Read records of Spark's Kafka source; as many rows out as in.

    Columns out:
      partition int, offset bigint
      kafka_time timestamp   when the broker got it; where the topic does not say so, now
      fields struct          event.FIELDS as sent, each the text of a JSON value, but event_time a timestamp;
                             the needed ones are good; NULL on the slow path
      value binary           the bytes on the slow path, at most event.MAX_BYTES + 1; NULL for a tombstone
      value_length int       bytes of the whole value
    """
    read = (
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
        .withColumn("slow", _slow(future_tolerance_seconds))
    )
    fields = {name: sf.col(f"e.{name}") for name in event.FIELD_NAMES} | {"event_time": sf.col("time")}
    return read.select(
        "partition",
        "offset",
        "kafka_time",
        sf.when(~sf.col("slow"), sf.struct(*(column.alias(name) for name, column in fields.items()))).alias(
            "fields"
        ),
        sf.when(sf.col("slow"), sf.substring("value", 1, event.MAX_BYTES + 1)).alias("value"),
        sf.octet_length("value").alias("value_length"),
    )


def _slow(future_tolerance_seconds: int) -> Column:
    text, texts = sf.col("text"), [f"e.{field.name}" for field in event.FIELDS if field.kind != "uuid"]
    lines = sf.concat_ws("\n", sf.lit(""), *texts, sf.lit(""))
    causes = [
        sf.octet_length("value") > event.MAX_BYTES,
        ~sf.is_valid_utf8(text),
        ~text.rlike(_FLAT) & (text.rlike(_UNSAFE) | lines.rlike(_UNSAFE_LINE)),
        sf.col(f"e.{_CORRUPT}").isNotNull(),
        ~sf.col("e.event_id").rlike(_UUID),
        ~sf.col("e.source").isin(*event.SOURCES),
        sf.col("time") < sf.lit(event.FIRST_TIME),
        sf.col("time") > sf.col("kafka_time") + sf.make_interval(secs=sf.lit(future_tolerance_seconds)),
    ]
    for field in _REQUIRED_TEXTS:
        sent, limit = sf.col(f"e.{field.name}"), field.limit
        causes.append(sf.octet_length(sent) > (limit if field.kind == "id" else limit // _NFC_GROWTH))
        causes.append(~sent.rlike(_VISIBLE))
    missing = [sf.col(name).isNull() for name in ("e.event_id", "time", "e.source", *_names(_REQUIRED_TEXTS))]
    # Each cause is NULL where its field is missing, and NULL is none.
    return sf.coalesce(reduce(or_, missing + causes), sf.lit(False))


def _names(fields: list[event.Field]) -> list[str]:
    return [f"e.{field.name}" for field in fields]
