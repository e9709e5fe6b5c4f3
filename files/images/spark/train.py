"""usage: train.py ARCHIVE

Run once what the job will do, and have Java keep the classes that it loaded: driver, executor, master and worker
then start in two thirds of the time and share these classes in memory.
"""

import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .config("spark.driver.extraJavaOptions", f"-XX:ArchiveClassesAtExit={sys.argv[1]} -Xlog:disable")
    .getOrCreate()
)
kafka = {
    "kafka.bootstrap.servers": "127.0.0.1:9",  # nobody there
    "kafka.request.timeout.ms": "1000",
    "kafka.default.api.timeout.ms": "1000",
    "subscribe": "plays",
}
try:
    spark.read.format("kafka").options(**kafka).load().collect()
except Exception as error:
    print(f"as expected: {type(error).__name__}")
else:
    raise SystemExit("there is a broker at 127.0.0.1:9")

play = F.struct(F.col("value").cast("string").alias("title"), F.col("timestamp").cast("string").alias("time"))
records = (
    spark.readStream.format("rate")
    .load()
    .select(F.encode(F.to_json(play), "UTF-8").alias("value"), "timestamp")
    .select(F.from_json(F.decode("value", "UTF-8"), "title STRING, time STRING").alias("play"), "timestamp")
    .withColumn("hash", F.xxhash64("play.title"))
    .withWatermark("timestamp", "10 minutes")
    .withColumn("window", F.window("timestamp", "5 minutes").start)
)
batches = []
with tempfile.TemporaryDirectory() as checkpoint:
    query = (
        records.writeStream.foreachBatch(lambda rows, _: batches.append(rows.toArrow().num_rows))
        .trigger(processingTime="500 milliseconds")
        .option("checkpointLocation", checkpoint)
        .start()
    )
    while len(batches) < 5 and query.isActive:
        query.awaitTermination(1)
    query.stop()
java = spark.sparkContext._gateway.proc
spark.stop()
# Java ends with its standard input, and writes the archive as its last deed.
java.stdin.close()
java.wait(timeout=120)
if sum(batches) == 0 or not Path(sys.argv[1]).exists():
    raise SystemExit(f"found {sum(batches)} rows, wanted some and the archive {sys.argv[1]}")
