"""The Spark session of the job: its settings, and what an aborted job says about the memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from music_streaming import query
from music_streaming.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Three copies of a result meet in the driver's heap: as it arrives, put together, and on its way to Python.
MAX_RESULT = "32m"

# Heap apart, a JVM of this job needs little; the defaults reserve for a server. The heap begins small: Java
# would begin with a 64th of the board's memory.
JVM_OPTIONS = (
    "-XX:+UseSerialGC -XX:ReservedCodeCacheSize=96m -XX:MaxMetaspaceSize=192m -Xss512k "
    "-Xms48m -XX:MinHeapFreeRatio=20 -XX:MaxHeapFreeRatio=40 -XX:+ExitOnOutOfMemoryError"
)
# A JVM whose memory ran out ends so: by ExitOnOutOfMemoryError, or by Spark's own handler.
MEMORY_EXIT_CODES = (3, 52)
MEMORY_ERRORS = ("java.lang.OutOfMemoryError", "org.apache.arrow.memory.OutOfMemoryException")
JOB_ABORTED = "org.apache.spark.SparkException"


def session(spark: SparkSettings, application: str, scratch: Path) -> SparkSession:
    """The Spark session on the standalone cluster; its executors need no Python."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  never at import

    conf = query.SESSION | {
        "spark.master": spark.master,
        "spark.app.name": application,
        "spark.driver.host": spark.driver_host,
        "spark.driver.bindAddress": spark.driver_host,
        "spark.driver.memory": spark.driver_memory,
        # Planning a batch a second is not worth the second compiler, which took 20 s of processor and 70 MB.
        "spark.driver.extraJavaOptions": f"{JVM_OPTIONS} -XX:TieredStopAtLevel=1",
        "spark.executor.memory": spark.executor_memory,
        "spark.executor.cores": str(spark.executor_cores),
        # Codecs unpack their libraries there. One that is killed leaves them: in its own work folder they go
        # with the application (the worker's clean-up), in /tmp, which is memory, nobody would delete them.
        "spark.executor.extraJavaOptions": f"{JVM_OPTIONS} -Djava.io.tmpdir=.",
        # Bytes of each heap that are set aside. The default, 300 MB, forbids a heap below 450 MB.
        "spark.testing.reservedMemory": str(64 * 1024**2),
        "spark.local.dir": str(scratch),
        # An executor that dies is always started again: nobody is there to do it.
        "spark.deploy.maxExecutorRetries": "-1",
        # There is one worker on most boards: waiting for a better place only delays a batch.
        "spark.locality.wait": "0",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.streaming.minBatchesToRetain": "2",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        "spark.sql.streaming.numRecentProgressUpdates": "2",
        # A batch too large for the driver's heap is refused before it gets there; see `too_large`.
        "spark.driver.maxResultSize": MAX_RESULT,
        # History for the web page, which is switched off; it would be kept in the heap all the same.
        "spark.ui.retainedJobs": "10",
        "spark.ui.retainedStages": "10",
        "spark.ui.retainedTasks": "100",
        "spark.sql.ui.retainedExecutions": "5",
    }
    builder = SparkSession.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("WARN")
    return made


def stop(session: SparkSession) -> None:
    """End the session, unless its JVM has ended already."""
    try:
        session.stop()
    except Exception as error:
        if not jvm_lost(error):
            raise


def too_large(error: BaseException) -> bool:
    """Whether Spark gave a job up since what it read did not fit into the memory.

    Told by the classes of the Java causes. Spark itself aborts a job, without any cause beneath, where the
    result is larger than spark.driver.maxResultSize and where executors die again and again; whatever else
    fails in a task, Kafka's answers too, is the cause of the abort.
    """
    thrown: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    last = ""
    try:
        while thrown is not None:
            last = thrown.getClass().getName()
            if any(name in MEMORY_ERRORS for name in _superclasses(thrown.getClass())):
                return True
            thrown = thrown.getCause()
    except Exception as dead:
        # No JVM answers any more; `ran_out_of_memory` knows why.
        if not jvm_lost(dead):
            raise
        return False
    return last == JOB_ABORTED


def _superclasses(java_class: Any) -> list[str]:
    names = []
    while java_class is not None:
        names.append(java_class.getName())
        java_class = java_class.getSuperclass()
    return names


def jvm_lost(error: Exception) -> bool:
    """Whether the JVM did not answer."""
    from py4j.protocol import Py4JNetworkError  # noqa: PLC0415

    return isinstance(error, (Py4JNetworkError, OSError))


def ran_out_of_memory(spark: SparkSession, *, seconds: float = 2) -> bool:
    """Whether the driver's JVM has ended since its memory ran out; waits `seconds` for its end."""
    jvm: subprocess.Popen[bytes] | None = getattr(spark.sparkContext._gateway, "proc", None)
    if jvm is None:
        return False
    try:
        return jvm.wait(seconds) in MEMORY_EXIT_CODES
    except subprocess.TimeoutExpired:
        return False


def task_at_work(spark: SparkSession) -> bool:
    """Whether an executor works at a task now."""
    tracker = spark.sparkContext.statusTracker()
    stages = (tracker.getStageInfo(number) for number in tracker.getActiveStageIds())
    return any(stage and stage.numActiveTasks > 0 for stage in stages)
