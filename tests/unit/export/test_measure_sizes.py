"""How wide runs must be, measured by the export, and the runs that follow from it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.measure_sizes import EQUAL, LEAST_QUESTIONS, filters_of, forced_width, measure_sizes
from export.publish import seal
from model.data.dataset import sequences
from model.data.split import Split, leave_one_out
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import EngineJobs
from model.reference.decoder import ReferenceDecoder, Scoring
from service.artifact.features import GAP_UNKNOWN
from service.artifact.graphs.noise import id_hashes
from service.artifact.graphs.run_sizes import ENTRY, FORMAT, RunSizes, Size
from service.artifact.manifest import MANIFEST, ArtifactFileError, read_manifest
from service.artifact.scorers.ranker_weights import DENSE, PATH
from service.engine.decoding import WIDTH_BUCKETS, Decoding, SearchSizes, joined_width, search_sizes
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, ListRequest, decode_key
from service.engine.run_groups import result_of
from service.policies.policies import DecodingSpec
from service.schemas.recommend_request import DecodingOverride
from tests.support.artifacts import random_parts, write_artifact
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

ITEMS = 300
BEAM, GREEDY = Decoding("beam"), Decoding("greedy")
ANY_BEAM = Decoding("beam", demanded=False)
PATH_COUNTS = 0.3
NARROW = RunSizes({Size(64, 16): Size(4, 24), Size(16, 16): Size(2, 16), Size(128, 128): Size(4, 128)})


def artifact(folder: Path, entry: dict[str, object] | None = None, path: float = 0.5) -> Path:
    """A random artefact, whose manifest has this entry, and which ranks by the path with this weight."""
    parts = random_parts(random_network(seed=4, n_items=ITEMS, sizes=(8, 8, 8)), weights={PATH: path, DENSE: 1 - path})
    written = write_artifact(folder, parts)
    if entry is not None:
        manifest = json.loads((written / MANIFEST).read_text("utf-8"))
        del manifest["model_version"]
        seal(written, {**manifest, ENTRY: entry}, "random")
    return written


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.open(artifact(tmp_path_factory.mktemp("artifact")), device="cpu", threads=1)


@pytest.fixture
def split() -> Split:
    return leave_one_out(sequences(tiny_dataset(users=120, items=ITEMS, seed=1)))


def asked(engine: Engine, decoding: Decoding, k: int, number: int, **changes: Any) -> DecodeJob:
    """A list from a random hidden state."""
    d, slots = engine.artifact.network["d_model"], engine.artifact.network["n_slots"]
    h = np.random.default_rng(number).standard_normal(d).astype(np.float32)
    request = ListRequest(context=np.zeros(slots, np.int64), gap_ms=GAP_UNKNOWN, decoding=decoding, k=k)
    return DecodeJob(h=h, request=replace(request, **changes))


def test_the_lists_of_what_is_found_equal_those_of_the_widest_run(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in plain loops, for lists of ten by beam under every filter that the export asks about."""
    monkeypatch.setattr("export.measure_sizes.LISTS", ((ANY_BEAM, 10), (GREEDY, 10)))
    engine = Engine.open(artifact(tmp_path, path=PATH_COUNTS), device="cpu", threads=1)
    found = measure_sizes(engine, split, dense=True)
    (about,) = [one for one in found.about["lists"] if one["strategy"] == "beam" and one["k"] == 10]
    size = found.sizes.of(Size(64, 16), sampled=False)
    assert about["size"] == size
    assert sum(size) < 64 + 16
    assert about["tried"][-1]["equal"] >= EQUAL
    assert any(one["equal"] < 1 for one in about["tried"]) or about["planned_equal"] < 1  # the path counts
    histories = Histories(split.valid.users, split.valid.history_end, split.sequences)
    jobs, events = EngineJobs(engine, ANY_BEAM), engine.artifact.vocabulary
    asked_of = [jobs.of(histories.events(i, events), histories.excluded(i), 10) for i in range(len(histories))]
    for said, _ in filters_of(engine.artifact.catalogue):
        lists = {}
        for width, sizes in ((64, found.sizes), (128, RunSizes({Size(128, 32): Size(128, 128)}))):
            engine.set_run_sizes(sizes)
            changes: dict[str, Any] = {"width": width, "filter_id": engine.filter_id(said)}
            asked_now = [replace(job, request=replace(job.request, **changes)) for job in asked_of]
            lists[width] = [result_of(result).decoded for result in engine.run(asked_now)]
        places = equal = 0
        for narrow, widest in zip(lists[64], lists[128], strict=True):
            for place, item in enumerate(widest.items.tolist()):
                places += 1
                at = narrow.items.tolist().index(item) if item in narrow.items else -1
                equal += at == place or (at >= 0 and abs(narrow.scores[at] - narrow.scores[place]) < 1e-4)
        assert equal >= EQUAL * places


def test_without_candidates_that_hold_the_list_or_with_few_questions_nothing_is_narrower(
    engine: Engine, split: Split
) -> None:
    alone = measure_sizes(engine, split, dense=False)
    few = measure_sizes(engine, replace(split, valid=split.valid.rows(np.arange(LEAST_QUESTIONS - 1))), dense=True)
    assert alone.sizes == few.sizes == RunSizes()
    assert str(LEAST_QUESTIONS) in few.about["why"]


def test_a_forced_width_narrows_whatever_is_wider_and_nothing_else() -> None:
    assert forced_width(128).sizes == RunSizes()
    sizes = forced_width(16).sizes
    assert sizes.of(Size(64, 16), sampled=False) == Size(16, 16)
    assert sizes.of(Size(128, 128), sampled=False) == Size(16, 128)
    assert sizes.of(Size(16, 16), sampled=False) == Size(16, 16)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine over an artefact whose manifest names narrower runs."""
    entry = {"format": FORMAT, **NARROW.to_json()}
    return Engine.open(artifact(tmp_path_factory.mktemp("narrow"), entry), device="cpu", threads=1)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    decoding=st.sampled_from([BEAM, ANY_BEAM, Decoding("beam", beam_width=4), GREEDY, Decoding("temperature")]),
    k=st.sampled_from([7, 10, 16, 40, 128]),
    number=st.integers(0, 2**32),
    said=st.sampled_from([{}, {"category": ["a"]}, {"brand": ["y"], "category": ["b"]}]),
    excluded=st.lists(st.integers(0, ITEMS - 1), max_size=ITEMS, unique=True),
)
def test_runs_are_as_wide_as_the_manifest_says_and_hold_k_items_whenever_there_are_k(
    narrow: Engine, decoding: Decoding, k: int, number: int, said: dict[str, list[str]], excluded: list[int]
) -> None:
    """Against the slow reference that was told the same sizes: the same candidates, and as many as the policy asks."""
    model = random_network(seed=4, n_items=ITEMS, sizes=(8, 8, 8))
    reference = ReferenceDecoder(
        model, id_hashes(narrow.artifact.catalogue.columns.ids), dense=True, measured=NARROW
    )  # fmt: skip
    changes: dict[str, Any] = {
        "filter_id": narrow.filter_id(said),
        "excluded": np.array(excluded, np.int64),
        "candidates": True,
    }
    job = asked(narrow, decoding, k, number, **changes)
    listed = result_of(narrow.decode([job])[0])
    catalogue = narrow.artifact.catalogue
    mask = catalogue.allowed(said)
    allowed = [item for item in range(ITEMS) if (mask is None or mask[item]) and item not in set(excluded)]
    assert len(listed.items) == min(k, len(allowed))
    if not allowed:
        return
    with torch.no_grad():
        q = model.query(
            torch.from_numpy(job.h), torch.from_numpy(job.request.context), torch.tensor(job.request.gap_ms)
        )
    want = reference.candidates(q, decoding, k, job.request.run_width, allowed, Scoring(0.5, 0.5))
    assert listed.candidates is not None
    assert set(listed.candidates.items.tolist()) == {one.item for one in want}


@pytest.mark.parametrize("beam_width", [1, 2, 4, 5, 9, 128])
@pytest.mark.parametrize("k", [1, 5, 10, 12, 20, 100, 128])
@pytest.mark.parametrize("children", [1, 3, 16])
def test_a_policy_gets_as_many_candidates_as_it_asks_for_at_any_measured_size(
    k: int, beam_width: int, children: int
) -> None:
    decoding = Decoding("beam", beam_width=beam_width)
    width, sampled, joined, least = decode_key(decoding.width(k), decoding, k)
    for narrow in (1, *WIDTH_BUCKETS):
        measured = RunSizes({Size(width, joined): Size(narrow, joined)})
        sizes = search_sizes(
            width, joined, sampled=sampled, dense=True, least=least, children=children, measured=measured
        )
        assert sizes.width + sizes.joined >= min(128, beam_width * k)
        assert sizes.joined >= k
        assert min(sizes.listed, sizes.width * children) >= k
        assert sizes.width + sizes.joined <= width + joined


def decode_shape(decoding: Decoding, k: int, pool: int = 0) -> tuple[int, int, dict[str, Any]]:
    """The arguments of `search_sizes` for such lists."""
    width, sampled, joined, least = decode_key(decoding.width(k), decoding, k, pool)
    return width, joined, {"sampled": sampled, "dense": True, "least": least, "children": 16}


def test_a_policy_that_demands_no_number_of_candidates_has_those_that_were_measured() -> None:
    said = DecodingSpec(strategy="beam")
    assert said.build() == DecodingOverride(strategy="beam").build() == ANY_BEAM
    width, joined, more = decode_shape(ANY_BEAM, 10)
    assert search_sizes(width, joined, **more, measured=NARROW) == SearchSizes(4, 16, 24)
    assert search_sizes(width, joined, **more) == SearchSizes(64, 64, 16)
    for demanding in (DecodingSpec(strategy="beam", beam_width=5), DecodingOverride(strategy="beam", beam_width=5)):
        assert demanding.build() == BEAM


def test_rules_have_as_many_candidates_to_choose_from_as_before() -> None:
    width, joined, more = decode_shape(BEAM, 10, 64)
    sizes = search_sizes(width, joined, **more, measured=NARROW)
    assert (sizes.listed, sizes.width + sizes.joined) == (64, 64)


def test_a_run_without_a_measurement_or_whose_candidates_may_not_hold_the_list_is_as_planned() -> None:
    for k, decoding in ((10, BEAM), (10, GREEDY), (100, GREEDY)):
        planned = SearchSizes(decoding.width(k), decoding.width(k), joined_width(k, decoding.width(k)))
        width, joined, more = decode_shape(decoding, k)
        assert search_sizes(width, joined, **more) == planned
        assert search_sizes(width, joined, **(more | {"dense": False}), measured=NARROW) == planned


def test_every_run_of_the_service_is_warmed_up(narrow: Engine) -> None:
    narrow.warm_up()
    warm = set(narrow._decoder.tables._shapes)
    for decoding in (BEAM, ANY_BEAM, GREEDY, Decoding("beam", beam_width=2), Decoding("temperature")):
        for k in (1, 5, 10, 12, 20, 50, 100):
            for pool in (0, decoding.width(k)):
                narrow.decode([asked(narrow, decoding, k, 0, pool=pool)])
    assert set(narrow._decoder.tables._shapes) == warm


def test_an_entry_of_another_format_or_with_impossible_sizes_is_refused_by_name(narrow: Engine, tmp_path: Path) -> None:
    good = {"format": FORMAT, **NARROW.to_json()}
    row = {"sampled": False, "planned": [64, 16], "width": 0, "joined": 16}
    folder = shutil.copytree(narrow.artifact.folder, tmp_path / "copy")
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    others: list[Any] = [good | {"format": 2}, good | {"sizes": [row]}, good | {"sizes": 3}, good | {"sizes": [{}]}, []]
    for bad in others:
        (folder / MANIFEST).write_text(json.dumps({**manifest, ENTRY: bad}), "utf-8")
        with pytest.raises(ArtifactFileError, match="entry search that cannot be used"):
            read_manifest(folder)


def test_other_sizes_are_another_version_and_none_is_the_version_of_before(engine: Engine, narrow: Engine) -> None:
    assert RunSizes.from_json({"format": FORMAT, **NARROW.to_json()}) == NARROW == narrow.artifact.run_sizes
    assert engine.artifact.run_sizes == RunSizes()
    assert narrow.model_version != engine.model_version
