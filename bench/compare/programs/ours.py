"""The product's job as on a board: Spark's master and worker, the driver, and an executor of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark

from music_streaming.broker import probe
from music_streaming.testing import free_ports, wait_for

HOST = "127.0.0.1"
# As roles/spark starts the two.
DAEMON = {
    "SPARK_DAEMON_MEMORY": "96m",
    "SPARK_DAEMON_JAVA_OPTS": "-Xms24m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=UTC",
    "SPARK_LOCAL_IP": HOST,
}


def daemon(service: str, *arguments: str) -> subprocess.Popen[Any]:
    """Start one of Spark's two daemons."""
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    command = [str(spark_class), f"org.apache.spark.deploy.{service}", "--host", HOST, *arguments]
    return subprocess.Popen(command, env=os.environ | DAEMON)


def main() -> int:
    port, master_page, worker_page = free_ports(3)
    work = os.environ["MUSIC_SPARK__SCRATCH_DIR"] + "-worker"
    master = f"spark://{HOST}:{port}"
    started = [daemon("master.Master", "--port", str(port), "--webui-port", str(master_page))]
    wait_for(lambda: probe(f"{HOST}:{port}"), lambda refused: not refused, 60)
    place = ("--webui-port", str(worker_page), "--work-dir", work)
    started.append(daemon("worker.Worker", "--cores", "2", "--memory", "1g", *place, master))
    job = subprocess.Popen(
        [sys.executable, "-m", "music_streaming.stream"], env=os.environ | {"MUSIC_SPARK__MASTER": master}
    )
    signal.signal(signal.SIGTERM, lambda *_: job.terminate())
    code = job.wait()
    for process in reversed(started):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    return code


if __name__ == "__main__":
    sys.exit(main())
