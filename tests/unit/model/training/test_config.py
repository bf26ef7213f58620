"""Training configurations: strict keys, strict types, and messages that say how to mend them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError
from model.network.config import SIZES
from model.training.config import LIMITS, TrainConfig
from model.training.config_checks import NETWORK_CHOICES, NETWORK_KEYS


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learnin_rate=1", r"unknown configuration key 'learnin_rate'; did you mean 'learning_rate'\?"),
        ("network.widow=8", r"did you mean 'network.window'\?"),
        ("colour=red", "unknown configuration key 'colour'$"),
        ("network.n_items=5", "unknown configuration key 'network.n_items'"),
        ("max_epochs=many", "max_epochs must be int, got 'many'"),
        ("max_epochs=1.5", "max_epochs must be int, got 1.5"),
        ("max_epochs=true", "max_epochs must be int, got True"),
        ("network.d_model=big", "network.d_model must be int, got 'big'"),
        ("learning_rate=fast", "learning_rate must be float, got 'fast'"),
        ("network=3", "network must be dict, got 3"),
        ("size=huge", "size 'huge' is unknown; choose one of tiny, small, base, large"),
        ("split=random", "choose leave_one_out or time"),
        ("decay=cosine", "decay 'cosine' is unknown; choose linear or none"),
        ("tokenizer=bpe", "choose atomic, hierarchical or semantic"),
        ("seed=-1", "seed must be between 0 and"),
        ("gap_known=1.5", "gap_known must be between 0 and 1, got 1.5"),
        ("ema=.nan", "ema must be between 0 and 1, got nan"),
        ("max_length=50", r"max_length \(50\) must exceed the window \(50\)"),
        ("network.window=500", r"max_length \(200\) must exceed the window \(500\)"),
        ("network.layers=0", "network.layers must be at least 1, got 0"),
        ("network.d_head=15", "network.d_head must be even"),
        ("network.state_dtype=int4", "network.state_dtype must be one of float32, float16, int8"),
        ("network.compression=max", "network.compression must be one of mean, convolution, attention"),
        ("seed=[", r"--set 'seed=\[': '\[' is not a value"),
        ("seed", "--set 'seed' is not key=value"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_with_a_hint(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.build(None, [assignment])


@pytest.mark.parametrize("method", ["augment=0.1", "contrast=0.1", "pretrain_epochs=1", "teacher=run"])
def test_methods_that_read_no_queries_are_refused_with_a_network_that_does(method: str) -> None:
    with pytest.raises(ConfigError, match=rf"methods\.{method.split('=')[0]} reads no queries"):
        TrainConfig.build(None, ["encoder=behaviours", "network.query_buckets=64", f"methods.{method}"])


def test_a_number_may_be_written_as_people_write_it() -> None:
    built = TrainConfig.build(None, ["learning_rate=1e-2", "weight_decay=0", "network.dropout=1e-1", "seed = 3"])
    assert (built.learning_rate, built.weight_decay, built.network["dropout"], built.seed) == (0.01, 0.0, 0.1, 3)
    assert isinstance(built.weight_decay, float)


def test_the_command_line_wins_over_assignments_and_they_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 1\nmax_epochs: 5\nsize: tiny\nnetwork:\n  window: 4\n", "utf-8")
    built = TrainConfig.build(file, ["seed=2", "network.layers=3"], seed=None)
    assert (built.seed, built.max_epochs, built.size) == (2, 5, "tiny")
    assert built.network == {"window": 4, "layers": 3}
    assert built.network_values()["d_model"] == SIZES["tiny"]["d_model"]
    assert built.network_values()["window"] == 4
    assert TrainConfig.build(file, ["seed=2"], seed=7).seed == 7


@pytest.mark.parametrize("text", [b"- 1\n- 2\n", b"seed: [", b"\xff\xfe\x00", b"5"])
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        TrainConfig.build(file, [])


def test_a_missing_file_is_refused_by_name_and_an_empty_one_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        TrainConfig.build(tmp_path / "none.yaml", [])
    (tmp_path / "empty.yaml").write_text("", "utf-8")
    assert TrainConfig.build(tmp_path / "empty.yaml", []) == TrainConfig()


@given(
    seed=st.integers(0, 2**40),
    learning_rate=st.floats(1e-6, 1.0),
    size=st.sampled_from(sorted(SIZES)),
    layers=st.integers(1, 8),
)
def test_a_configuration_is_the_same_after_save_and_load(
    tmp_path_factory: pytest.TempPathFactory, seed: int, learning_rate: float, size: str, layers: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "config.json"
    made = TrainConfig(size=size, seed=seed, learning_rate=learning_rate, network={"layers": layers})
    made.save(path)
    assert TrainConfig.load(path) == made


@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_size_can_be_trained_with_the_defaults(size: str) -> None:
    assert TrainConfig(size=size).network_values().keys() <= NETWORK_KEYS


def test_every_number_has_a_limit() -> None:
    numbers = {f.name for f in fields(TrainConfig) if f.type in ("int", "float")}
    network = {key.removeprefix("network.") for key in LIMITS if key.startswith("network.")}
    assert numbers <= LIMITS.keys()
    assert network == NETWORK_KEYS - NETWORK_CHOICES.keys() - {"type_scale", "session_ids"}
