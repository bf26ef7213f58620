"""An encoder that starts from a GPT-2 computes what that GPT-2 computes, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.errors import ConfigError, RunError
from model.network.encoders.base import Events
from model.network.gpt2_weights import GPT2Folder
from model.training.config import TrainConfig
from model.training.pretrained import resolve_pretrained
from model.training.run_folder import Run
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

SHAPE = {
    "model_type": "gpt2",
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 16,
    "activation_function": "gelu_new",
}
D, FF = 24, 96


def a_gpt2(folder: Path, *, prefix: str = "", sharded: bool = False, **changed: Any) -> Path:
    """Writes a small random GPT-2 as transformers would."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    tensors = {"wte.weight": random(50, D), "wpe.weight": random(16, D)}
    for layer in range(2):
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"h.{layer}.{norm}.weight": 1 + random(D), f"h.{layer}.{norm}.bias": random(D)}
        for name, rows, columns in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, FF),
            ("mlp.c_proj", FF, D),
        ):
            tensors |= {f"h.{layer}.{name}.weight": random(rows, columns), f"h.{layer}.{name}.bias": random(columns)}
    tensors |= {"ln_f.weight": 1 + random(D), "ln_f.bias": random(D)}
    tensors = {prefix + name: tensor for name, tensor in tensors.items() if name not in changed.get("without", ())}
    (folder / "config.json").write_text(json.dumps(SHAPE | changed.get("config", {})))
    if not sharded:
        save_file(tensors, folder / "model.safetensors")
        return folder
    parts = {"model-1.safetensors": list(tensors)[::2], "model-2.safetensors": list(tensors)[1::2]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    index = {name: file for file, names in parts.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def shape_of(found: GPT2Folder) -> dict[str, Any]:
    return dict(found.network())


def by_loops(folder: Path, x: Any) -> Any:
    """GPT-2 position by position, with plain sums over earlier positions: [T, D] inputs with positions → states."""
    from safetensors.numpy import load_file

    w = {
        name.removeprefix("transformer."): a.astype(float)
        for name, a in load_file(folder / "model.safetensors").items()
    }

    def norm(v: Any, name: str) -> Any:
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(v: Any, name: str) -> Any:
        return v @ w[f"{name}.weight"] + w[f"{name}.bias"]

    states = [v + w["wpe.weight"][at] for at, v in enumerate(x)]
    for layer in range(2):
        triples = [np.split(linear(norm(v, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn"), 3) for v in states]
        mixed = []
        for at, (query, _, _) in enumerate(triples):
            heads = []
            for head in np.split(np.arange(D), 3):
                score = np.array([query[head] @ key[head] / np.sqrt(len(head)) for _, key, _ in triples[: at + 1]])
                share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
                heads.append(sum(s * value[head] for s, (_, _, value) in zip(share, triples, strict=False)))
            mixed.append(states[at] + linear(np.concatenate(heads), f"h.{layer}.attn.c_proj"))
        states = []
        for v in mixed:
            y = linear(norm(v, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            states.append(v + linear(y, f"h.{layer}.mlp.c_proj"))
    return np.stack([norm(v, "ln_f") for v in states])


@pytest.mark.parametrize(("prefix", "sharded"), [("", False), ("transformer.", False), ("transformer.", True)])
def test_the_encoder_computes_what_the_gpt2_computes(tmp_path: Path, prefix: str, sharded: bool) -> None:
    found = GPT2Folder.open(a_gpt2(tmp_path / "read", prefix=prefix, sharded=sharded))
    model = random_network(encoder="gpt2rec", window=12, **shape_of(found))
    with torch.no_grad():
        encoder: Any = model.encoder
        torch.nn.init.eye_(encoder.adapt.weight)
        torch.nn.init.zeros_(encoder.adapt.bias)
    found.start(model)
    x = torch.randn(1, 9, D, generator=torch.Generator().manual_seed(2))
    none = torch.zeros(1, 9, dtype=torch.int64)
    with torch.no_grad():
        h = model.encoder(x, Events(none, none, x, x), None)
        adapted = encoder.adapt(x)[0].double().numpy()
    wanted = by_loops(a_gpt2(tmp_path / "plain"), adapted)
    assert h[0].numpy() == pytest.approx(wanted, abs=1e-4)


def test_embedded_items_start_as_spread_as_the_words_were(tmp_path: Path) -> None:
    found = GPT2Folder.open(a_gpt2(tmp_path))
    model = random_network(encoder="gpt2rec", window=12, scale=0.0, **shape_of(found))
    found.start(model)
    encoder: Any = model.encoder
    with torch.no_grad():
        assert encoder.adapt(model.item_table()[:-2]).std().item() == pytest.approx(0.3, rel=0.05)


def test_a_training_starts_from_it_and_its_run_needs_it_no_longer(tmp_path: Path) -> None:
    folder = a_gpt2(tmp_path / "gpt2")
    settings = TrainConfig(
        encoder="gpt2rec", gpt2=str(folder), network={"window": 8, "layers": 1, "dropout": 0.1}, batch_tokens=400,
        max_epochs=1, max_length=16,
    )  # fmt: skip
    trainer = Trainer(tiny_dataset(users=30), Path("data"), tmp_path / "run", settings)
    assert (trainer.network.d_model, trainer.network.heads, trainer.network.d_head) == (24, 3, 8)
    assert (trainer.network.d_ff, trainer.network.layers) == (96, 1)
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")["h.0.mlp.c_fc.weight"]
    encoder: Any = trainer.model.encoder
    assert torch.equal(encoder.blocks[0].up.weight.cpu(), stored.T)
    trainer.fit()
    for file in folder.iterdir():
        file.unlink()
    assert Run.open(tmp_path / "run").model().config == trainer.network


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"d_model": 32}, "network.d_model is 32, but the GPT-2 in .* needs 24; leave network.d_model out"),
        ({"heads": 4}, "network.heads is 4"),
        ({"d_ff": 48}, "network.d_ff is 48"),
        ({"layers": 3}, "network.layers is 3, but the GPT-2 in .* has 2 layers"),
        ({"window": 17}, "network.window is 17, but the GPT-2 in .* has 16 positions"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_its_setting(
    tmp_path: Path, network: dict[str, Any], said: str
) -> None:
    settings = TrainConfig(encoder="gpt2rec", gpt2=str(a_gpt2(tmp_path)), network={"window": 8, **network})
    with pytest.raises(ConfigError, match=said):
        resolve_pretrained(settings)
    with pytest.raises(ConfigError, match="choose encoder gpt2rec"):
        TrainConfig(gpt2=str(tmp_path))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config": {"model_type": "llama"}}, "model_type is 'llama'"),
        ({"config": {"activation_function": "relu"}}, "activation_function is 'relu'"),
        ({"config": {"n_head": 5}}, "24 dimensions do not part into 5 heads"),
        ({"config": {"n_inner": 48}}, r"h.0.mlp.c_fc.weight has the shape \(24, 96\), but config.json says \(24, 48\)"),
        ({"config": {"n_embd": "wide"}}, "this is not the folder of a GPT-2"),
        ({"without": ["ln_f.bias"]}, "the weights lack ln_f.bias"),
    ],
)
def test_another_model_or_a_damaged_one_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said):
        found = GPT2Folder.open(a_gpt2(tmp_path, **changed))
        found.start(random_network(encoder="gpt2rec", window=12, **shape_of(found)))


def test_missing_pickled_and_cut_off_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="this is not the folder of a GPT-2"):
        GPT2Folder.open(tmp_path)
    found = GPT2Folder.open(a_gpt2(tmp_path))
    model = random_network(encoder="gpt2rec", window=12, **shape_of(found))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(RunError, match="the weights cannot be read"):
        found.start(model)
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(RunError, match="are not read: save them"):
        found.start(model)
