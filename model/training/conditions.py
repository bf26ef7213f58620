"""What a training position knows of its request: user features, scene, control codes and gap, with context dropout.

A request may lack any of them, so training shows each only some of the time. The scene of a training position is that
of its target event; its control codes (a category, a price band, a style) are those of its target item. A model could
memorise users by their features; dropout and coarse fields prevent that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from torch import Tensor

from model.data.dataset import NO_SCENE, Dataset, Sequences
from model.training.config import StyleSource, TrainConfig
from service.artifact.array_types import Float64Array
from service.artifact.features import (
    EVENT_TYPES,
    GAP_EDGES_MS,
    GAP_UNKNOWN,
    GAP_VALUES_MS,
    SIGNAL_TYPES,
    ContextVocabulary,
)

GAP_QUANTILE = 0.99
CONTROL_LEVELS = 2  # upper levels of a category path that are control codes
# Quarters of the items by price.
PRICE_BANDS = ("lowest", "low", "high", "highest")
# Styles that are control codes: those of the most items.
STYLES_MAX = 256


def item_controls(dataset: Dataset, item_ids: list[str]) -> list[list[str]]:
    """Returns the categories of each item that a request can name: its tags, or the upper levels of its path."""
    rows = {row["item_id"]: row["category"] or [] for row in dataset.items.iter_rows(named=True)}
    whole = dataset.category_kind == "tags"
    return [list(rows.get(item, [])) if whole else list(rows.get(item, [])[:CONTROL_LEVELS]) for item in item_ids]


def item_styles(dataset: Dataset, train: Sequences, source: StyleSource) -> list[list[str]]:
    """Returns the styles of each item that a request can name: the values that most items of the training part have.

    Args:
        dataset: Provides the items.
        train: The training part.
        source: The column of the item table that says the style.
    """
    if source == "none":
        return [[] for _ in train.item_ids]
    found = {row["item_id"]: row[source] or [] for row in dataset.items.select("item_id", source).iter_rows(named=True)}
    of_item = [found.get(item, []) for item in train.item_ids]
    styles = [[one] if isinstance(one, str) else list(one) for one in of_item]
    count = Counter(style for item in np.unique(train.item).tolist() for style in styles[item])
    kept = {style for style, _ in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))[:STYLES_MAX]}
    return [sorted(kept.intersection(own)) for own in styles]


def item_prices(dataset: Dataset, train: Sequences) -> Float64Array:
    """Returns the price of each item [items], NaN where unknown.

    Where the item table has no prices at all, the median `value` of the training part's purchases stands in.
    """
    listed = dataset.items.filter(pl.col("price").is_not_null()).select("item_id", "price")
    if listed.is_empty():
        listed = _paid(dataset, train)
    price = dict(zip(listed["item_id"], listed["price"], strict=True))
    return np.array([price.get(item, np.nan) for item in train.item_ids], np.float64)


def _paid(dataset: Dataset, train: Sequences) -> pl.DataFrame:
    """Returns item_id and price from the purchases of the training part, which are the first events of each user."""
    kept = pl.DataFrame({"user_id": train.user_ids, "kept": train.lengths})
    events = dataset.events.filter(~pl.col("event_type").is_in(sorted(SIGNAL_TYPES)))
    position = pl.int_range(pl.len()).over("user_id")
    trained = pl.col("position") < pl.col("kept")
    bought = (pl.col("event_type") == "purchase") & pl.col("value").is_not_null() & trained
    events = events.with_columns(position=position).join(kept, on="user_id").filter(bought)
    return events.group_by("item_id").agg(price=pl.col("value").median())


def price_bands(dataset: Dataset, train: Sequences) -> list[str | None]:
    """Returns the price band of each item, by the quartiles of the items in the training part; None without a price."""
    price = item_prices(dataset, train)
    known = np.zeros(len(price), bool)
    known[np.unique(train.item)] = True
    known &= ~np.isnan(price)
    if len(np.unique(price[known])) < len(PRICE_BANDS):
        return [None] * len(price)
    edges = np.quantile(price[known], np.linspace(0, 1, len(PRICE_BANDS) + 1)[1:-1])
    band = np.searchsorted(edges, price, side="left")
    return [None if np.isnan(p) else PRICE_BANDS[b] for p, b in zip(price, band, strict=True)]


def fit_context(
    dataset: Dataset, train: Sequences, controls: list[list[str]], styles: list[list[str]] | None = None
) -> ContextVocabulary:
    """Fits the context vocabulary on the training part.

    Args:
        dataset: Provides users and prices.
        train: The training part; only its users, items, scenes and gaps enter the vocabulary.
        controls: Categories of each item, from `item_controls`.
        styles: Styles of each item, from `item_styles`; None: there are none.
    """
    names, styles = ContextVocabulary, styles or [[]] * train.n_items
    reserved = ("user_id", names.SCENE, names.CONTROL, names.PRICE, *((names.STYLE,) if any(styles) else ()))
    columns = [column for column in dataset.users.columns if column not in reserved]
    trained = set(np.array(train.user_ids, object)[train.lengths > 0])
    users = dataset.users.filter(dataset.users["user_id"].is_in(sorted(trained)))
    fields = {name: users[name].to_list() for name in columns}
    seen = np.unique(train.item)
    gaps = np.diff(train.time_ms)
    inside = np.ones(len(gaps), bool)
    borders = train.offsets[1:-1]
    inside[borders[(borders > 0) & (borders <= len(gaps))] - 1] = False
    gaps = gaps[inside]
    longest = int(np.quantile(gaps, GAP_QUANTILE)) if train.has_time and len(gaps) else 0
    scenes = [] if train.scene is None else [train.scenes[row] for row in np.unique(train.scene) if row != NO_SCENE]
    codes = [c for item in seen for c in controls[item]]
    worn = [style for item in seen for style in styles[item]]
    return ContextVocabulary.fit(fields, scenes, codes, longest, price_bands(dataset, train), worn)


def type_shares(weights: Mapping[str, float]) -> Tensor:
    """Returns the share [types] of each type's targets that carry a loss: its weight (1 if unset) over the largest."""
    weight = torch.tensor([float(weights.get(name, 1.0)) for name in EVENT_TYPES])
    return weight / weight.max()


def draw_loss_mask(target_type: Tensor, shares: Tensor) -> Tensor:
    """Draws which positions carry a loss, with the share of their target's type.

    On average a type then counts in the loss by its weight.

    Args:
        target_type: Event types, of any shape.
        shares: [types] shares of `type_shares`.

    Returns:
        A bool mask in the shape of `target_type`.
    """
    if bool((shares == 1).all()):  # draws nothing, so that seeds reproduce runs from before the weights existed
        return torch.ones_like(target_type, dtype=torch.bool)
    return torch.rand(target_type.shape) < shares[target_type]


@dataclass(frozen=True)
class Conditions:
    """Context rows by user, by scene and by item. Row 0 means unknown.

    Attributes:
        features: [users, fields] rows of the user features.
        scenes: [scenes + 1] rows of the scenes; the last one is that of `NO_SCENE`, 0.
        controls: [items, most] rows of the items' categories, padded with 0.
        n_controls: [items] number of categories of each item.
        n_slots: Slots of a context.
        max_gap_ms: Longest gap that is trained; a longer one counts as unknown.
        prices: [items] rows of the items' price bands; empty without prices.
        styles: [items, most] rows of the items' styles, padded with 0; empty without styles.
        n_styles: [items] number of styles of each item.
    """

    features: Tensor
    scenes: Tensor
    controls: Tensor
    n_controls: Tensor
    n_slots: int
    max_gap_ms: int
    prices: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    styles: Tensor = field(default_factory=lambda: torch.zeros(0, 1, dtype=torch.int64))
    n_styles: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        log: Sequences,
        vocabulary: ContextVocabulary,
        controls: list[list[str]],
        styles: list[list[str]] | None = None,
    ) -> Conditions:
        """Looks up the context rows of the users and scenes of a log and of all items.

        Args:
            dataset: Provides user features and prices.
            log: The sequences whose positions are trained.
            vocabulary: The context vocabulary, from `fit_context`.
            controls: Categories of each item, from `item_controls`.
            styles: Styles of each item, from `item_styles`; None: there are none.
        """
        by_user = {row["user_id"]: row for row in dataset.users.iter_rows(named=True)}
        features = np.zeros((log.n_users, len(vocabulary.fields)), np.int64)
        for row, user_id in enumerate(log.user_ids):
            features[row] = vocabulary.encode(by_user.get(user_id, {}))[: len(vocabulary.fields)]
        learned = vocabulary.values.get(vocabulary.SCENE, {})
        scenes = [*(learned.get(name, 0) for name in log.scenes), 0]
        table, counts = _rows_of(controls, vocabulary.values.get(vocabulary.CONTROL, {}))
        style_table, style_counts = _rows_of(styles or [[]] * log.n_items, vocabulary.values.get(vocabulary.STYLE, {}))
        bands = vocabulary.values.get(vocabulary.PRICE, {})
        prices = [bands.get(band or "", 0) for band in (price_bands(dataset, log) if bands else [None] * log.n_items)]
        return cls(
            torch.from_numpy(features),
            torch.tensor(scenes),
            table,
            counts,
            len(vocabulary.slots),
            vocabulary.max_gap_ms,
            torch.tensor(prices, dtype=torch.int64),
            style_table,
            style_counts,
        )

    def sample_features(self, config: TrainConfig, user: Tensor) -> Tensor:
        """Returns the context rows [B, slots] of users [B] with their features only, with dropout as in `sample`."""
        context = torch.zeros(len(user), self.n_slots, dtype=torch.int64)
        fields = self.features.shape[1]
        shown = torch.rand(len(user), fields) < config.features_known
        context[:, :fields] = torch.where(shown, self.features[user], 0)
        return context

    def sample(
        self, config: TrainConfig, user: Tensor, target: Tensor, gap_ms: Tensor, scene: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draws what P positions know of their requests, with torch's global generator.

        Args:
            config: The shares `features_known`, `scene_known`, `control_known` and `gap_known`.
            user: [P] rows of the users.
            target: [P] target items.
            gap_ms: [P] milliseconds between the last event and the target, `GAP_UNKNOWN` where there is none.
            scene: [P] scenes of the targets, `NO_SCENE` where unknown.

        Returns:
            Context rows [P, slots], 0 where unknown, and gaps [P] in the steps that the service reads them in,
            `GAP_UNKNOWN` where unknown.
        """
        n, fields = len(target), self.features.shape[1]
        context = torch.zeros(n, self.n_slots, dtype=torch.int64)
        if fields:
            shown = torch.rand(n, fields) < config.features_known
            context[:, :fields] = torch.where(shown, self.features[user], 0)
        if self.scenes.any():  # draws nothing for a log without scenes, so that its seeds reproduce earlier runs
            shown = torch.rand(n) < config.scene_known
            context[:, -2] = torch.where(shown, self.scenes[scene], 0)
        count = self.n_controls[target]
        choice = (torch.rand(n) * count).long().clamp(max=self.controls.shape[1] - 1)
        shown = (torch.rand(n) < config.control_known) & (count > 0)
        context[:, -1] = torch.where(shown, self.controls[target, choice], 0)
        if self.prices.any():
            shown = torch.rand(n) < config.control_known
            context[:, fields] = torch.where(shown, self.prices[target], 0)
        if self.n_styles.any():
            count = self.n_styles[target]
            choice = (torch.rand(n) * count).long().clamp(max=self.styles.shape[1] - 1)
            shown = (torch.rand(n) < config.control_known) & (count > 0)
            context[:, -3] = torch.where(shown, self.styles[target, choice], 0)
        trained = (torch.rand(n) < config.gap_known) & (gap_ms >= 0) & (gap_ms <= self.max_gap_ms)
        trained &= self.max_gap_ms > 0  # without times every gap is unknown, as in the service
        return context, torch.where(trained, _quantised(gap_ms), GAP_UNKNOWN)


def _quantised(gap_ms: Tensor) -> Tensor:
    """The same as `quantised_gap_ms`; what is unknown gets any value."""
    steps = torch.bucketize(gap_ms, torch.tensor(GAP_EDGES_MS), right=True)
    return torch.tensor(GAP_VALUES_MS)[steps]


def _rows_of(codes: Sequence[Sequence[str]], rows: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Returns the known rows of each item's codes [items, most], padded with 0, and their numbers [items]."""
    known = [[rows[code] for code in own if code in rows] for own in codes]
    table = np.zeros((len(known), max([1, *map(len, known)])), np.int64)
    for item, own in enumerate(known):
        table[item, : len(own)] = own
    return torch.from_numpy(table), torch.tensor([len(own) for own in known], dtype=torch.int64)
