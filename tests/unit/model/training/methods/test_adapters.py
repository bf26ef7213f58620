"""Adapters on a kept backbone: they begin as nothing, alone are learned, and compute what their formula says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.errors import ConfigError, RunError
from model.network.encoders.base import Events
from model.network.gpt4rec import GPT4Rec
from model.training.config import TrainConfig
from model.training.methods.adapters import KEPT, resolve_backbone
from model.training.run_folder import Run
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "size": "tiny", "batch_tokens": 200, "learning_rate": 1e-2, "warmup_steps": 2, "max_epochs": 1, "max_length": 12,
}  # fmt: skip
UNITS = 5


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops") / "large"
    Trainer(tiny_dataset(users=40), Path("data"), folder, TrainConfig(**QUICK)).fit()
    return folder


def config_on(backbone: Path, **changed: Any) -> TrainConfig:
    return TrainConfig(**QUICK | changed, methods={"backbone": str(backbone), "adapter": UNITS})


def another_shop(folder: Path, config: TrainConfig, *, resume: bool = False) -> Trainer:
    return Trainer(tiny_dataset(users=20, items=18, seed=5), Path("data"), folder, config, resume=resume)


def states(model: GPT4Rec, x: Tensor) -> Tensor:
    times = torch.arange(x.shape[1])[None].expand(x.shape[:2]) * 3_600_000
    with torch.no_grad():
        h: Tensor = model.eval().encoder(x, Events(torch.zeros_like(times), times, x, torch.zeros_like(x)), None)
    return h


def kept_of(model: GPT4Rec, of: GPT4Rec) -> dict[str, tuple[Tensor, Tensor]]:
    """The parameters of the backbone, and the same parts of a network on it."""
    own = dict(model.named_parameters())
    return {
        name: (old.detach(), own[name].detach()[tuple(slice(n) for n in old.shape)])
        for name, old in of.named_parameters() if name.startswith(KEPT)
    }  # fmt: skip


def test_adapters_begin_as_nothing_and_alone_of_the_encoder_are_learned(backbone: Path, tmp_path: Path) -> None:
    source = Run.open(backbone).model()
    trainer = another_shop(tmp_path / "run", config_on(backbone))
    x = torch.randn(2, 9, source.config.d_model, generator=torch.Generator().manual_seed(0))
    assert trainer.network.d_ff == source.config.d_ff + UNITS
    assert trainer.network.n_items == 18
    assert torch.allclose(states(trainer.model, x), states(source, x), atol=1e-6)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.fit()
    for file in backbone.parent.glob("large"):
        file.rename(backbone.parent / "moved")
    trained = Run.open(tmp_path / "run").model()
    (backbone.parent / "moved").rename(backbone)
    for model in (trainer.model, trained):
        assert all(torch.equal(old, now) for old, now in kept_of(model, source).values())
        own = dict(model.named_parameters())
        for name in ("encoder.blocks.0.up.weight", "encoder.blocks.1.down.weight", "item.weight", "level_out.0.weight"):
            assert not torch.equal(own[name], before[name]), name
    assert not torch.allclose(states(trained, x), states(source, x), atol=1e-6)


def test_a_block_with_an_adapter_is_the_sum_of_its_formula(backbone: Path, tmp_path: Path) -> None:
    source = Run.open(backbone).model()
    trainer = another_shop(tmp_path, config_on(backbone))
    block: Any = trainer.model.eval().encoder.blocks[0]  # type: ignore[index]
    old: Any = source.encoder.blocks[0]  # type: ignore[index]
    with torch.no_grad():
        torch.nn.init.normal_(block.down.weight[:, -UNITS:])
        n = torch.randn(4, source.config.d_model)
        adapter = F.gelu(n @ block.up.weight[-UNITS:].T + block.up.bias[-UNITS:]) @ block.down.weight[:, -UNITS:].T
        wanted = old.down(F.gelu(old.up(n))) + adapter
        assert torch.allclose(block.down(F.gelu(block.up(n))), wanted, atol=1e-5)


def test_an_interrupted_training_goes_on_with_the_same_backbone(backbone: Path, tmp_path: Path) -> None:
    config = config_on(backbone, max_epochs=2)
    another_shop(tmp_path / "whole", config).fit()

    def interrupt(tick: Any) -> None:
        if tick.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        another_shop(tmp_path / "broken", config).fit(report=interrupt)
    again = another_shop(tmp_path / "broken", Run.open(tmp_path / "broken").config, resume=True)
    again.fit()
    whole = Run.open(tmp_path / "whole").model().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in Run.open(again.folder).model().state_dict().items())


def test_what_does_not_fit_the_backbone_is_refused_by_name(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder is sasrec, but the backbone in .* has gpt4rec"):
        resolve_backbone(config_on(backbone, encoder="sasrec"))
    with pytest.raises(ConfigError, match=r"network.d_ff is 64, but the backbone in .* needs 69; leave network.d_ff"):
        resolve_backbone(config_on(backbone, network={"d_ff": 64}))
    with pytest.raises(RunError, match="this is not a training run"):
        resolve_backbone(config_on(tmp_path))
    without = tiny_dataset(users=20, has_time=False)
    with pytest.raises(RunError, match="the backbone has times of events, the data has none"):
        Trainer(without, Path("data"), tmp_path / "run", config_on(backbone))
    settled = resolve_backbone(config_on(backbone))
    assert resolve_backbone(settled) == settled
    assert resolve_backbone(replace(settled, methods={})).network == settled.network
