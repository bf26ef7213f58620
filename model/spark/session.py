"""The Spark session of a command: opened for it, and closed with it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model.data.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOCAL = "local"


@contextmanager
def spark_session(master: str, name: str) -> Iterator[SparkSession]:
    """Yields a session, and stops it at the end.

    A local one stays on this machine: it listens on the loopback alone, and has no page.

    Args:
        master: Where Spark runs: `local[4]`, `spark://HOST:PORT`, `yarn`, `k8s://…`.
        name: What the application is called there.

    Raises:
        DataError: Spark or Java is not installed, or the master cannot be reached.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise DataError(
            "Spark is not installed", where=f"--spark {master}", fix="pip install 'gpt4rec[spark]'"
        ) from error
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise DataError(
            "there is no Java, which Spark runs on",
            where="JAVA_HOME and PATH",
            fix="install Java 17 or later: apt-get install default-jre-headless",
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName(name)
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if master.startswith(_LOCAL):
        for key in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(key, "127.0.0.1")
        builder = builder.config("spark.ui.enabled", "false")
        builder = builder.config("spark.sql.shuffle.partitions", str(2 * (os.cpu_count() or 1)))
    try:
        spark = builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise DataError(
            f"Spark did not start: {str(error).splitlines()[0]}",
            where=f"--spark {master}",
            fix="check the master and the Java of this machine",
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()
