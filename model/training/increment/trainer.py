"""The training of an increment: the loop of `model.training.trainer`, from the weights of a finished run.

What differs: tokens, context rows and vectors of new items and values are added to those of the run; batches hold the
new events, with the events before them as context, and a sample of old sequences; after each step the old weights are
held (`consolidation.py`), or some are not moved at all (`keep_encoder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.data.dataset import Dataset
from model.errors import RunError
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.item_content import contents_of
from model.training.batches import BatchPlan
from model.training.conditions import Conditions, fit_context, item_controls, item_styles
from model.training.config import TrainConfig
from model.training.content_vectors import content_vectors
from model.training.fitted_parts import FittedParts
from model.training.increment.consolidation import Consolidation
from model.training.increment.growth import grown_context, grown_fisher, grown_network, grown_shape, is_old
from model.training.increment.memory import Memory, remember
from model.training.increment.new_rows import NewRows, start_new_rows
from model.training.increment.replay import CONTEXT, Learned, ReplayPlan, learned_events
from model.training.increment.settings import IncrementSettings
from model.training.increment.start import Start, kept_counts, stand_ins
from model.training.item_attributes import attribute_rows
from model.training.repeats import Repeats, resolve_repeats
from model.training.run_folder import Run, write_run_json
from model.training.trainer import Trainer
from service.artifact.features import Vocabulary

# Parts of the network that only the decoder reads; with `keep_encoder` they and the rows of new items are trained.
DECODER = ("context.", "advance.", "level_norm.", "level_token.", "level_out.")


class IncrementTrainer(Trainer):
    """A training that goes on from a run.

    Attributes:
        start: The run, its memory and the data.
        settings: How it is gone on from.
        notes: What a reader of the output should know.
        new_rows: What the vectors of new items started from.
    """

    def __init__(
        self,
        start: Start,
        folder: Path,
        config: TrainConfig,
        settings: IncrementSettings,
        *,
        resume: bool = False,
        chosen: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepares the increment.

        Args:
            start: What it starts from.
            folder: The run folder to create, or to resume.
            config: The training configuration, from `increment_config`.
            settings: How the run is gone on from; its strength is decided.
            resume: Whether to continue from the last finished epoch.
            chosen: How the strength was chosen.

        Raises:
            RunError: See `Trainer`; or there is nothing to learn, or no free token is left.
        """
        assert settings.strength is not None  # noqa: S101 - documented above
        self.start, self.settings, self._chosen = start, settings, chosen
        self.notes = list(start.data.notes)
        if resume:
            _check_same(folder, start, settings)
        super().__init__(start.data.dataset, start.data.path, folder, config, resume=resume)
        if settings.keep_encoder:
            self.model.item.weight.register_hook(self._masked)  # type: ignore[no-untyped-call]
        self._hold = self._consolidation() if settings.strength else None

    @property
    def new_positions(self) -> int:
        """Number of new events that the increment learns from."""
        return self._learned.new_events

    # -- what differs from a training that begins anew

    def _settled(self, config: TrainConfig) -> tuple[TrainConfig, Repeats]:
        self._learned = self._find_learned(config)
        if self.start.run.repeats is not None:
            return config, Repeats(**self.start.run.repeats)
        return resolve_repeats(config, self.split)

    def _find_learned(self, config: TrainConfig) -> Learned:
        memory = self.start.memory
        learned = learned_events(self.split.sequences, self.split.train, memory.new_from_ms, config.split)
        if not learned.new_events and not self.settings.replay:
            raise RunError(
                "the data has no event that the run has not learned",
                where=str(self.start.data.path),
                fix="give newer data, or --replay above 0 to go over old sequences again",
            )
        return learned

    def _fit_parts(self, dataset: Dataset, data_path: Path, *, resume: bool) -> FittedParts:
        run, train, n_old = self.start.run, self.split.train, self.start.n_old
        if not resume:
            self.start.data.save()
        controls = item_controls(dataset, train.item_ids)
        styles = item_styles(dataset, train, self.config.styles)
        context, notes = grown_context(run.context, fit_context(dataset, train, controls, styles))
        content = content_vectors(self.config, dataset, train.item_ids, data_path)
        dim = 0 if content.in_items is None else content.in_items.shape[1]
        if dim != run.network.content:
            raise RunError(
                f"the vectors of the data have {dim} dimensions, those of the run {run.network.content}",
                where=str(data_path),
                fix="import the new data with vectors of the same kind, or leave out --init",
            )
        try:
            tokenizer, far = run.tokenizer.extended(contents_of(dataset, train.item_ids, content.all)[n_old:])
        except ValueError as error:
            raise RunError(str(error), where=f"{train.n_items - n_old:,} new items", fix="leave out --init") from error
        if far:
            notes.append(
                f"the cells near {far:,} new items are full: they got tokens that say nothing of their content"
            )
        if run.network.query_buckets and dataset.searches is not None:
            notes.append("an increment does not learn from searches: only a training without --init does")
        self.notes += notes
        return FittedParts(
            context=context,
            vocabulary=Vocabulary.of(
                train.item_ids,
                context,
                dataset.has_time,
                run.network.n_types,
                run.network.query_buckets,
                run.known_queries,
                reads_sessions=run.network.session_ids,
            ),
            conditions=Conditions.of(dataset, train, context, controls, styles),
            content=content,
            tokenizer=tokenizer,
            network=grown_shape(run.network, train.n_items, context),
            attributes=run.attributes,
            attribute_rows=attribute_rows(run.attributes, dataset, train),
            known_queries=run.known_queries,
        )

    def _first_network(self, parts: FittedParts) -> GPT4Rec:
        torch.manual_seed(self.config.seed)
        run, memory = self.start.run, self.start.memory
        self._before = run.model()
        model = grown_network(
            self._before, parts.network, torch.from_numpy(parts.tokenizer.codes), run.context, parts.context
        )
        if model.attributes is not None and parts.attribute_rows is not None:  # old items keep what states have read
            model.attributes.set_rows(torch.from_numpy(parts.attribute_rows[self.start.n_old :]), self.start.n_old)
        if len(memory.cold):
            model.set_item_vectors(torch.from_numpy(memory.cold), torch.from_numpy(memory.cold_vectors))
        self.new_rows: NewRows = start_new_rows(
            model, self.start.n_old, self.split.train, self.start.data.dataset, parts.content
        )
        if self.settings.keep_encoder:
            for name, parameter in model.named_parameters():
                trained = name.startswith(DECODER) and not (model.describe is not None and name.startswith("context."))
                parameter.requires_grad_(trained or name == "item.weight")
        self._first_weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        return model

    def _batch_plan(self) -> BatchPlan:
        length, context = type(self.model.encoder).cuts(self.network, self.config.max_length)
        context, config = min(context, CONTEXT), self.config
        return ReplayPlan(
            self._learned, length, context, config.batch_tokens, config.seed, share=self.settings.replay
        )  # fmt: skip

    def _describe_run(self, dataset: Dataset, data_path: Path, parts: FittedParts) -> None:
        parts.save(self.folder)
        self.config.save(self.folder / "config.json")
        increment = about(self.start, self.settings) | {"chosen": self._chosen}
        write_run_json(
            self.folder, dataset, data_path, parts.network, parts.context, self.repeats, increment, parts.attributes
        )

    def _consolidation(self) -> Consolidation:
        memory, strength = self.start.memory, float(self.settings.strength or 0.0)
        for group in self.optimiser.param_groups:
            group["weight_decay"] = 0.0
        given = dict(self._before.named_parameters())
        fisher = grown_fisher(memory.fisher, self.model)
        old = {name: is_old(name, given[name].detach(), p.detach()) for name, p in self.model.named_parameters()}
        ratio = memory.positions / max(1, self._learned.new_events)
        return Consolidation(self.model, self.optimiser, fisher, old, self._first_weights, strength * ratio)

    def _after_step(self) -> None:
        if self._hold is not None:
            self._hold()
        if self.settings.keep_encoder:
            self._restore_old_rows()

    @torch.no_grad()
    def _restore_old_rows(self) -> None:
        """Undoes what momentum and weight decay did to rows that stay."""
        rows, first, n = self.model.item.weight, self._first_weights["item.weight"], self.start.n_old
        rows[:n] = first[:n]
        rows[-2:] = first[-2:]

    def _masked(self, gradient: Tensor) -> Tensor:
        """Returns the gradient of the item rows without that of the rows that stay."""
        masked = gradient.clone()
        masked[: self.start.n_old] = 0
        masked[-2:] = 0
        return masked


def memory_of(trainer: Trainer, dataset: Dataset, data_path: Path) -> Memory:
    """Returns the memory of a training that is over; that of an increment is of the old and the new data.

    Args:
        trainer: The training.
        dataset: Its data.
        data_path: Folder of the data, which keeps the vectors of its texts.
    """
    before = None
    if isinstance(trainer, IncrementTrainer):
        memory, data_path = trainer.start.memory, trainer.start.data.path
        before = replace(memory, fisher=grown_fisher(memory.fisher, trainer.model))
    return remember(trainer, stand_ins(Run.open(trainer.folder), dataset, trainer.split, data_path), before)


def about(start: Start, settings: IncrementSettings) -> dict[str, Any]:
    """Returns the entry `increment` of `run.json`: what an increment goes on from, and how."""
    return {
        **settings.to_json(),
        "from": {"data": start.run.data["fingerprint"], "events": start.run.data["events"]},
        "kept": list(kept_counts(start.run)) if settings.keep_encoder else [],
    }


def _check_same(folder: Path, start: Start, settings: IncrementSettings) -> None:
    saved = Run.open(folder).increment
    if saved is None or {name: value for name, value in saved.items() if name != "chosen"} != about(start, settings):
        raise RunError(
            "the run goes on from another one, or in another way",
            where=str(folder / "run.json"),
            fix="resume with the same --init, --data, --keep-encoder, --ewc and --replay",
        )
