"""A run folder: everything that a training leaves behind. Nothing in it is pickled.

    RUN/run.json                 data set, fingerprint, context vocabulary, network, repeats, attributes of items
    RUN/config.json              the training configuration
    RUN/tokenizer.json, .npz     token paths of the items
    RUN/queries.npz              digests of the queries that the network has vectors of, where it has any
    RUN/checkpoint.safetensors   the last finished epoch: weights, moving average, optimiser, progress
    RUN/best.safetensors         moving-average weights of the best epoch on validation
    RUN/checkpoint.index.json,   with `shard_items`: the same two in parts, NAME-<step>-<number>-of-<n>.safetensors
        best.index.json          (`model.training.sharded_files`)
    RUN/memory.safetensors       what an increment needs to know of the data (`model.training.increment.memory`)
    RUN/data/                    of an increment whose events were joined from two data sets: all of them
    RUN/metrics.json             what `gpt4rec train` measured at its end
    RUN/tensorboard/             losses and validation NDCG@10 of every epoch

`model.training.trainer` writes it; evaluation and export read it through `Run`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Split, choose_validation_users, leave_one_out, time_boundaries, time_split
from model.errors import RunError
from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.loading import load_tokenizer
from model.tokenizers.tokenizer import Tokenizer
from model.training.config import TrainConfig
from model.training.repeats import Repeats
from model.training.sharded_files import Shards, index_of
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.items.item_attributes import AttributeVocabulary
from service.artifact.query_text import KnownQueries
from service.common.atomic_files import replacing, write_aside

FORMAT = 2
# What reading a damaged file raises.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    zipfile.BadZipFile,
)

# With `shard_items` the two are in several files, under these names (`model.training.sharded_files`).
CHECKPOINT_NAME, BEST_NAME = "checkpoint", "best"
CHECKPOINT = f"{CHECKPOINT_NAME}.safetensors"
BEST = f"{BEST_NAME}.safetensors"


def has_checkpoint(folder: Path) -> bool:
    """Returns whether a run folder has a finished epoch to resume from."""
    return (folder / CHECKPOINT).exists() or index_of(folder, CHECKPOINT_NAME).exists()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes tensors with JSON metadata. The file is renamed into place, so a reader never sees half of it.

    Args:
        path: The file to write or replace.
        tensors: Tensors by name, on any device.
        meta: Metadata that JSON can hold.

    Raises:
        OSError: The file cannot be written; an earlier one is left as it was.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as aside:
        save_file(contiguous, aside, metadata={"meta": json.dumps(meta)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote: the tensors, on the CPU, and the metadata.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            meta = json.loads(file.metadata()["meta"])
    except Exception as error:
        raise RunError(
            f"{path.name} cannot be read: {error}", where=str(path), fix="train again without --resume"
        ) from error
    return tensors, meta


def split_of(config: TrainConfig, log: Sequences) -> Split:
    """Returns the split that a configuration names; a time split holds out the newest events."""
    if config.split == "time":
        return time_split(log, *time_boundaries(log, config.valid_share, config.test_share))
    n = config.validation_users
    return leave_one_out(log, choose_validation_users(log.n_users) if n < 0 else n or None)


def split_with_validation(config: TrainConfig, dataset: Dataset) -> Split:
    """Returns the split that a configuration names.

    Raises:
        RunError: Nobody is held out for validation.
    """
    split = split_of(config, sequences(dataset))
    if not len(split.valid):
        raise RunError(
            "no user is held out for validation",
            where=f"split {config.split} of {dataset.name}",
            fix="import a longer log: leave_one_out needs users with three events or more, time needs users with "
            "events after the boundary",
        )
    return split


def saved_config(folder: Path) -> TrainConfig:
    """Reads the configuration of a run.

    Raises:
        RunError: The file cannot be read, is damaged, or has settings that this version does not know.
    """
    try:
        return TrainConfig.load(folder / "config.json")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"config.json of the run cannot be read: {error}",
            where=str(folder / "config.json"),
            fix="restore the file from a copy, or train into another folder",
        ) from error


@dataclass(frozen=True)
class Run:
    """The folder of a finished or interrupted training, opened for reading.

    Attributes:
        folder: The run folder.
        config: The training configuration, with the defaults that followed from the data.
        network: Shape of the network.
        context: The context vocabulary.
        tokenizer: Token paths of the items.
        data: `data` of `run.json`: name, path, fingerprint and size of the data set.
        repeats: What validation said about items that are taken again; None in a run of an earlier version.
        increment: How the run goes on from another one (`model.training.increment`); None if it began anew.
        attributes: The attributes of items that the network reads; None if it reads none.
        known_queries: The queries that the network has vectors of; None if it has none.
    """

    folder: Path
    config: TrainConfig
    network: NetworkConfig
    context: ContextVocabulary
    tokenizer: Tokenizer
    data: Mapping[str, Any]
    repeats: Mapping[str, Any] | None = None
    increment: Mapping[str, Any] | None = None
    attributes: AttributeVocabulary | None = None
    known_queries: KnownQueries | None = None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens a run folder.

        Raises:
            RunError: The folder is not a run folder, is damaged, or has another format.
        """
        try:
            about = json.loads((folder / "run.json").read_text("utf-8"))
            config = saved_config(folder)
            if about["format"] != FORMAT:
                raise RunError(
                    f"the run has run format {about['format']}, this version reads {FORMAT}",
                    where=str(folder),
                    fix="train again with this version",
                )
            network = NetworkConfig.from_json(about["network"])
            context = ContextVocabulary.from_json(about["context"])
            tokenizer, data = load_tokenizer(folder), about["data"]
            repeats, increment = about.get("repeats"), about.get("increment")
            attributes = AttributeVocabulary.from_json(about["attributes"]) if network.attribute_slots else None
            known = KnownQueries.load(folder, network.n_known_queries) if network.n_known_queries else None
            return cls(folder, config, network, context, tokenizer, data, repeats, increment, attributes, known)
        except _DAMAGED as error:
            raise RunError(
                f"this is not a training run: {error}",
                where=str(folder),
                fix=f"name the folder of a training, or make one with `gpt4rec train --out {folder}`",
            ) from error

    def model(self) -> GPT4Rec:
        """Returns the network with the weights of the best epoch, in evaluation mode.

        Raises:
            RunError: The weights are missing, damaged or of another network.
        """
        sharded = index_of(self.folder, BEST_NAME).exists()
        tensors = Shards.open(self.folder, BEST_NAME).whole() if sharded else load_tensors(self.folder / BEST)[0]
        try:
            model = GPT4Rec(self.network, torch.from_numpy(self.tokenizer.codes))
            model.load_state_dict(tensors, strict=True)
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"the weights belong to another network: {error}", where=str(self.folder), fix="train again"
            ) from error
        return model.eval()

    def vocabulary(self, item_ids: Sequence[str]) -> Vocabulary:
        """Returns what the network knows, of items given in index order."""
        c, known = self.network, self.known_queries
        return Vocabulary.of(
            item_ids, self.context, c.has_time, c.n_types, c.query_buckets, known, reads_sessions=c.session_ids
        )  # fmt: skip

    def data_path(self, path: Path | None = None) -> Path:
        """Returns where the data set lies: `path` if it has moved, else where the training found it."""
        return path or Path(self.data["path"])

    def dataset(self, path: Path | None = None) -> Dataset:
        """Returns the data set that the run was trained on.

        Args:
            path: Where it lies now, if it has moved.

        Raises:
            RunError: The data has changed since the training.
        """
        where = self.data_path(path)
        dataset = Dataset.load(where)
        if dataset.fingerprint != self.data["fingerprint"]:
            raise RunError(
                "this is not the data that the run was trained on (fingerprints differ)",
                where=f"{where}, for the run {self.folder}",
                fix="give the original data with --data, or train again",
            )
        return dataset

    def split(self, dataset: Dataset) -> Split:
        """Returns the split that the run was trained with."""
        return split_of(self.config, sequences(dataset))


def write_run_json(
    folder: Path,
    dataset: Dataset,
    path: Path,
    network: NetworkConfig,
    context: ContextVocabulary,
    repeats: Repeats,
    increment: Mapping[str, Any] | None = None,
    attributes: AttributeVocabulary | None = None,
) -> None:
    """Writes `run.json`: the network, what it knows beside items, repeats, and which data set was trained on."""
    times = dataset.events["timestamp"]
    about = {
        "format": FORMAT,
        "network": network.to_json(),
        "context": context.to_json(),
        "repeats": repeats.to_json(),
        "data": {
            "name": dataset.name,
            "path": str(path.absolute()),
            "fingerprint": dataset.fingerprint,
            "users": dataset.events["user_id"].n_unique(),
            "events": len(dataset.events),
            "first_event_ms": times.min() if dataset.has_time else None,
            "last_event_ms": times.max() if dataset.has_time else None,
        },
    }
    about |= {} if increment is None else {"increment": dict(increment)}
    about |= {} if attributes is None else {"attributes": attributes.to_json()}
    write_aside(folder / "run.json", json.dumps(about, indent=1).encode())
