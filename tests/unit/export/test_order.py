"""`gpt4rec order learn`: from a log to an artefact with an order, where the order is better; else to nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from export.order import versions_of, with_order
from export.order_cli import app
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of
from model.online.marginals import Law, conditionals, log_weights
from model.online.partitions import LogRange
from model.slate.deciding import read
from service.artifact.artifact import Artifact
from service.artifact.manifest import MANIFEST, ArtifactFileError
from service.artifact.scorers.order_weights import ORDER_FILE
from tests.support.orders import order_weights

K, CANDIDATES = 3, 7
SCORES = np.linspace(0.0, 1.5, CANDIDATES).astype(np.float32)
LOOKS = np.array([1.0, 0.6, 0.4])


def write_log(folder: Path, version: str, attraction: np.ndarray, lists: int = 900) -> LogFolder:
    """Lists that were drawn from the same candidates, with clicks and their dwell."""
    rng, law = np.random.default_rng(0), Law(1.0)
    exposures, events = [], []
    for number in range(lists):
        order = np.argsort(-(log_weights(SCORES, law) + rng.gumbel(size=CANDIDATES)))[:K]
        row: dict[str, Any] = {
            "list_id": f"L{number}", "subject": f"u:{number // 3}", "time_ms": number, "k": K, "segment": "all",
            "items": [f"i{item}" for item in order], "scores": SCORES[order].tolist(), "drawn": K,
            "strategy": "temperature", "parameters": {"temperature": 1.0, "top_p": 1.0, "beam_width": None},
            "log_propensities": conditionals(SCORES, law, order).tolist(), "model_version": version,
            "seed": str(number), "arms": [], "candidates": list(range(CANDIDATES)),
            "candidate_scores": SCORES.tolist(),
        }  # fmt: skip
        exposures.append(row)
        common = {"subject": row["subject"], "time_ms": number, "received_ms": number, "list_id": row["list_id"]}
        for item in order[rng.random(K) < attraction[order] * LOOKS].tolist():
            events.append({**common, "item_id": f"i{item}", "type": "click"})
            events.append({**common, "item_id": f"i{item}", "type": "view", "value": float(rng.exponential(20.0))})
    log = LogFolder(folder)
    log.write("exposures", frame_of("exposures", exposures), "x")
    log.write("events", frame_of("events", events), "x")
    return log


def learn(log: Path, artifact: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    asked = ["learn", "--log", str(log), "--artifact", str(artifact), "--out", str(out), "--least-effective", "60"]
    done = CliRunner().invoke(app, [*asked, *more, "--json"])
    return done.exit_code, json.loads(done.stdout) if done.exit_code < 2 and done.stdout else {"said": done.output}


def test_an_order_that_earns_more_becomes_part_of_the_artefact(random_artifact: Path, tmp_path: Path) -> None:
    plain = Artifact.open(random_artifact)
    # The best by score attract least.
    log = write_log(tmp_path / "log", plain.model_version, np.linspace(0.7, 0.1, CANDIDATES))
    code, report = learn(tmp_path / "log", random_artifact, tmp_path / "out", "--reward", "both")
    assert (code, report["better"], report["refused"]) == (0, True, None), report
    assert report["lift"]["dr"]["low"] > 0
    np.testing.assert_allclose(report["examination"], LOOKS, rtol=0.25)
    ordered = Artifact.open(report["artifact"])
    assert ordered.order is not None and plain.order is None
    assert ordered.model_version != plain.model_version
    assert versions_of(ordered) == (ordered.model_version, plain.model_version)
    assert ordered.encoder_version == plain.encoder_version
    assert ordered.manifest["order"]["lift"] == report["lift"]
    item = ordered.order.item
    assert item[0] > item[CANDIDATES - 1]
    # Lists of the model before its order count for the next order too.
    lists = read(LogRange(log), "dwell", versions_of(ordered), lists_max=10**6)
    assert len(lists.sample.lists) == len(lists.dwell) == report["lists"] and lists.other_models == 0
    code, other = learn(tmp_path / "log", random_artifact.parent / "none", tmp_path / "out")
    assert code == 1 and "not an artefact" in other["said"]


def test_an_order_that_earns_no_more_is_not_kept(random_artifact: Path, tmp_path: Path) -> None:
    version = Artifact.open(random_artifact).model_version
    write_log(tmp_path / "log", version, np.linspace(0.1, 0.7, CANDIDATES))
    code, report = learn(tmp_path / "log", random_artifact, tmp_path / "out", "--method", "policy")
    assert (code, report["better"], report["artifact"]) == (0, False, None)
    assert not (tmp_path / "out").exists()


def test_a_log_of_another_model_is_refused(random_artifact: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "log", "another-1", np.full(CANDIDATES, 0.5), lists=9)
    code, said = learn(tmp_path / "log", random_artifact, tmp_path / "out")
    assert code == 1 and "no drawn list of random-" in said["said"] and "9 of another-1" in said["said"]
    code, said = learn(tmp_path / "log", random_artifact, tmp_path / "out", "--language-model", str(tmp_path / "none"))
    assert code == 1 and "there is no language model" in said["said"]
    for option in ("--reward", "--method"):
        asked = ["learn", "--log", "x", "--artifact", "x", "--out", "x", option, "joy"]
        assert CliRunner().invoke(app, asked).exit_code == 2


def test_a_damaged_order_and_one_of_another_catalogue_are_refused(random_artifact: Path, tmp_path: Path) -> None:
    plain = Artifact.open(random_artifact)
    with pytest.raises(ValueError, match="an order of 6 items"):
        with_order(plain, order_weights(6), tmp_path, {})
    folder = with_order(plain, order_weights(plain.catalogue.n_exported), tmp_path, {"reward": "clicks"})
    assert Artifact.open(folder).order is not None
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / ORDER_FILE).write_bytes(b"x" * manifest["files"][ORDER_FILE]["bytes"])
    with pytest.raises(ArtifactFileError, match=r"order\.npz is not the file"):
        Artifact.open(folder)
    with pytest.raises(ArtifactFileError, match=r"order\.npz cannot be used"):
        Artifact.open(folder, checksums=False)
