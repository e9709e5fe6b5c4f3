"""A limit: Spark reads the topic and parses the plays; nothing is judged, counted or written."""

from __future__ import annotations

import os
from pathlib import Path

from spark_session import mark, plays, records, session

if __name__ == "__main__":
    spark = session()
    mark("FIRST")
    stream = plays(records(spark, os.environ["BENCH_TOPIC"]))
    (
        stream.writeStream.format("noop")
        .option("checkpointLocation", str(Path(os.environ["BENCH_FOLDER"], "noop")))
        .trigger(availableNow=True)
        .start()
        .awaitTermination()
    )
    mark("LAST")
