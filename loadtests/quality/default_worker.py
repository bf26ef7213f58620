"""Trains the defaults and writes what they learned, so that two working trees can be compared.

    python -m loadtests.quality.default_worker DATA FOLDER --size tiny --epochs 2 --seed 0

Writes the weights of the best epoch and the lists of the test questions into FOLDER, and prints the processor seconds
of the training. Only what older trees have as well is used (`loadtests.quality.unchanged` runs this file against them).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from model.data.dataset import Dataset
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import network_ranker
from model.training.config import TrainConfig
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.cli.outermost import run_command


def main(
    data: Annotated[Path, typer.Argument(help="Data set of `gpt4rec data`.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the run, which must be new.")],
    size: Annotated[str, typer.Option(help="Size of the network.")] = "small",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Trains once, and writes weights.npz and lists.npy."""
    torch.set_num_threads(1)
    dataset = Dataset.load(data)
    config = TrainConfig().updated({"size": size, "max_epochs": epochs, "patience": epochs, "seed": seed})
    trainer = Trainer(dataset, data, folder, config)
    began = time.process_time()
    trainer.fit()
    seconds = time.process_time() - began
    model = Run.open(folder).model()
    rankers = {"dense": network_ranker(model, trainer.vocabulary)}
    found = evaluate(rankers, trainer.split, "test", exclude_history=not trainer.config.repeats, samples=1).systems
    np.save(folder / "lists.npy", found["dense"].lists[:, :10])
    np.savez(folder / "weights.npz", allow_pickle=False, **{k: v.numpy() for k, v in model.state_dict().items()})
    np.save(folder / "ndcg.npy", found["dense"].per_user["ndcg@10"])
    typer.echo(f"{seconds:.6f}")


if __name__ == "__main__":
    run_command(main)
