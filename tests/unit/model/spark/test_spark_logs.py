"""Logs on Spark: the data set and the counts of one machine, row for row (`make spark`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.spark.session import spark_session
from tests.support.deployment import ROOT

pytestmark = pytest.mark.spark

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None, reason="needs pyspark and Java"
)


@needs_spark
@pytest.mark.timeout(600)
def test_a_random_log_with_ties_is_the_same_on_spark(tmp_path: Path) -> None:
    # A process of its own: the Java that it starts ends with it.
    command = [
        sys.executable,
        "-m",
        "loadtests.fleet.spark_equal",
        "--dry",
        "--random",
        "4000",
        "--split",
        "leave_one_out",
    ]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "0 rows differ" in done.stdout
    assert not list(tmp_path.glob("*/.*.spark"))


def test_without_java_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("needs pyspark")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match="default-jre-headless"), spark_session("local[1]", "none"):
        pass


def test_a_log_that_cannot_be_cut_is_refused_before_spark_starts(tmp_path: Path) -> None:
    from model.spark.importing import import_on_spark

    (tmp_path / "log.csv").write_text('user_id,item_id\nu,"a \\" b"\n')
    with pytest.raises(DataError, match="quotes behind backslashes"):
        import_on_spark(ImportRequest(str(tmp_path / "log.csv"), Format.CSV), tmp_path / "data", "local[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]
