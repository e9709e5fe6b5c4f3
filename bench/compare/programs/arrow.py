"""The job as a hand-written Python consumer: columns of Arrow, the transaction in a thread of its own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
from consumer import FIELDS, METRICS, Flow, run

_KINDS = {
    **dict.fromkeys(("duration_ms", "listened_ms"), pa.int64()),
    **dict.fromkeys(("skipped", "liked", "completed"), pa.bool_()),
}
SCHEMA = pa.schema([(name, _KINDS.get(name, pa.string())) for name in FIELDS])
SUMS = ("skips", "likes", "listened_ms", "duration_ms")
COUNTS = [("user_id", "count"), *((name, "sum") for name in SUMS)]


def csv(table: pa.Table) -> bytes:
    """The table in the CSV format of COPY."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())


def metric(plays: pa.Table, kind: int) -> bytes:
    """What the plays add to one kind of metric, as CSV."""
    minutes, *keys = METRICS[kind]
    starts = pc.floor_temporal(plays["time"], minutes, "minute")
    grouped = (
        plays.append_column("window", starts)
        .group_by(["window", *keys])
        .aggregate([*COUNTS, ("user_id", "distinct")])
    )
    listeners = pc.binary_join(grouped["user_id_distinct"], " ")
    columns = [pa.array([kind] * len(grouped), pa.int32()), grouped["window"].cast(pa.string())]
    columns += [grouped[name] for name in (*keys, *(f"{name}_{how}" for name, how in COUNTS))]
    return csv(pa.table([*columns, listeners], names=list("abcdefghij")))


def work(flow: Flow) -> None:
    with ThreadPoolExecutor(1) as pool:
        before: Future[None] | None = None
        for values, ends in flow.batches():
            plays = pyarrow.json.read_json(
                pa.BufferReader(b"\n".join(values)),
                pyarrow.json.ReadOptions(block_size=4 << 20),
                pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore"),
            )
            rows = csv(plays)
            times = pc.strptime(
                pc.utf8_slice_codeunits(plays["event_time"], 0, 19), format="%Y-%m-%dT%H:%M:%S", unit="s"
            )
            plays = plays.append_column("time", times.cast(pa.timestamp("s", tz="UTC")))
            for name, flag in (("skips", "skipped"), ("likes", "liked")):
                plays = plays.append_column(name, plays[flag].cast(pa.int64()))
            metrics = [metric(plays, kind) for kind in METRICS]
            if before:
                before.result()
            before = pool.submit(flow.write, "(FORMAT csv)", rows, metrics, ends)
        if before:
            before.result()


if __name__ == "__main__":
    run(work)
