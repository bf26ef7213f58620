"""The shape of a network, as plain data.

Fields declared with `setting` can be set by a user, as `network.<field>` of a training configuration. The others follow
from the data.
"""

from __future__ import annotations

import math
from dataclasses import Field, asdict, dataclass, field
from typing import Any, Literal, TypeVar

StateDtype = Literal["float32", "float16", "int8"]
Compression = Literal["mean", "convolution", "attention"]
Pattern = Literal["window", "strided", "fixed", "routing"]
Position = Literal["rotary", "relative", "relative_time", "sinusoid", "none"]
TimeDecay = Literal["logarithmic", "exponential", "linear", "none"]

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What is documented and checked of a field that a user may set.

    `python -m model.training.reference` writes docs/training.md from it.

    Attributes:
        meaning: What the setting does.
        change: When to change it.
        least: Smallest allowed number.
        most: Largest allowed number.
        choices: Names that a text may have, where its type does not list them.
    """

    meaning: str
    change: str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()


def setting(
    default: T,
    meaning: str,
    change: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> T:
    """Declares a dataclass field with its default, its description and its bounds; see `Setting`."""
    metadata = {"setting": Setting(meaning, change, least, most, choices)}
    made: Any = field(default=default, metadata=metadata)
    if isinstance(default, dict):  # a new one for each instance
        made = field(default_factory=default.copy, metadata=metadata)
    declared: T = made
    return declared


def setting_of(declared: Field[Any]) -> Setting | None:
    """Returns the `Setting` of a dataclass field; None where it was not declared with `setting`."""
    described: Setting | None = declared.metadata.get("setting")
    return described


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network. `code_sizes[l]` is the number of different tokens at level l."""

    n_items: int
    code_sizes: tuple[int, ...]
    n_types: int
    n_context_rows: int
    n_slots: int
    has_time: bool = True
    d_model: int = setting(
        128,
        "Width of item embeddings, hidden states and queries.",
        "More for large catalogues with many events, best with another `size`. Cost and artefact grow with it.",
        least=1,
    )
    layers: int = setting(
        2,
        "Layers of the encoder.",
        "More for long histories. Each layer adds keys and values to the state in Redis.",
        least=1,
    )
    heads: int = setting(4, "Query heads of the attention.", "Rarely. Recurrent encoders ignore it.", least=1)
    d_head: int = setting(
        32,
        "Width of an attention head; even, for rotary positions.",
        "Less for a smaller state: `gpt4rec` stores one key and one value of this width for each event and layer.",
        least=2,
    )
    d_ff: int = setting(
        256, "Width of the feed-forward layers.", "With `network.d_model`; twice to four times as much.", least=1
    )
    d_context: int = setting(
        32,
        "Width of the embeddings of user features, scenes, categories and price bands.",
        "More for many features.",
        least=1,
    )
    window: int = setting(
        50,
        "How many events attention looks back over in each layer. `gpt4rec` and its variants see as many windows as "
        "they have layers, the other encoders see one.",
        "More for histories whose older events still matter. State size and encode time grow with it, and `max_length` "
        "must exceed it.",
        least=1,
    )
    dropout: float = setting(
        0.3,
        "Dropout of the inputs and of every layer's output.",
        "More if validation NDCG@10 peaks after a few epochs, less if it still rises at the last one.",
        least=0,
        most=0.99,
    )
    state_dtype: StateDtype = setting(  # noqa: RUF009 - a dataclass field
        "float16",
        "How keys and values are stored in a state. Training rounds them the same way.",
        "`int8` where Redis memory counts (0.6 × the bytes), `float32` for exact states (2 ×).",
    )
    compression: Compression = setting(  # noqa: RUF009 - a dataclass field
        "mean",
        "How `compressive` makes one entry of a block of events: the mean, learned weights by place, or attention.",
        "`convolution` or `attention` where the order of a block, or one of its events, matters most.",
    )
    compression_ratio: int = setting(
        8,
        "Events that become one entry of `compressive`.",
        "More to reach further back, less for finer entries.",
        least=1,
    )
    memory_slots: int = setting(
        32,
        "Entries that `compressive` keeps for each layer, behind the window.",
        "More to reach further back. State size grows with it.",
        least=1,
    )
    user_vector: Literal["sum", "mlp"] = setting(
        "sum",
        "How features, scene and control codes become one vector. `sum` adds up their embeddings; `mlp` puts them side "
        "by side into a layer of twice their width, so that it can learn what two of them mean together.",
        "`mlp` for features that mean something in combination.",
    )
    prompts: int = setting(
        0,
        "Soft prompts: how many vectors are learned for each value of `prompt_for`. The hidden state reads them with "
        "attention before the decoder, so that states stay valid.",
        "4 to 16 for scenes or segments that differ in more than their most popular items.",
        least=0,
        most=64,
    )
    pattern: Pattern = setting(  # noqa: RUF009 - a dataclass field
        "window",
        "Which events of the window an event of `window_attention` reads: all; with `strided` the newest `stride` and "
        "every `stride`-th before; with `fixed` its own block of `stride` events and the last event of each block "
        "before; with `routing` those that a learned scorer chooses.",
        "To compare on long windows.",
    )
    stride: int = setting(8, "Stride of the pattern `strided`, block of `fixed`.", "With the window.", least=1)
    routed_keys: int = setting(
        16,
        "Events that an event reads with the pattern `routing`, besides itself; at most the window less one.",
        "With the window; see also `methods.routing_balance`.",
        least=1,
    )
    positions: Position = setting(  # noqa: RUF009 - a dataclass field
        "rotary",
        "Positions of `window_attention`: rotary; `relative`, a learned number for each distance; `relative_time`, one "
        "for each distance and one for the time between two events; `sinusoid`, sinusoids of the distance and α times "
        "those of the time; or none.",
        "`relative_time` or `sinusoid` where the time between two events says more than its logarithm.",
    )
    max_distance: int = setting(
        32, "Distance K from which on `relative` positions are all alike.", "With the window.", least=1, most=65_536
    )
    time_decay: TimeDecay = setting(  # noqa: RUF009 - a dataclass field
        "logarithmic",
        "How the weight of an event falls with its age in `window_attention`: as a power of it (`logarithmic`, as in "
        "`gpt4rec`), exponentially, linearly down to nothing, or not.",
        "`exponential` or `linear` where old events are worth nothing.",
    )
    decay_rate: float = setting(
        0.0,
        "Rate λ of `time_decay`, a day for `exponential` and `linear`; 0: learned by each head.",
        "To compare: `python -m loadtests.quality.horizons --sweep` tries several.",
        least=0,
    )
    bank_slots: int = setting(
        16,
        "Slots of the memory of `memory_bank`.",
        "More for more different things to keep. State size grows with it.",
        least=1,
    )
    session_slots: int = setting(
        24,
        "Sessions that have ended whose summaries `hierarchy` keeps.",
        "More for shorter sessions. State size grows with it.",
        least=1,
    )
    session_gap_minutes: int = setting(
        30,
        "The longest pause within a session of `hierarchy`.",
        "More where people take their time, such as a day for shopping baskets.",
        least=1,
    )
    session_ids: bool = setting(
        False,
        "Whether sessions of `hierarchy` end where the session that an event names ends, and by pauses only between "
        "events of which one names none. A service keeps such names with `GPT4REC_HISTORY_SESSIONS`.",
        "`true` for logs whose events name sessions, such as baskets, and a service whose events do.",
    )
    encoder: str = "gpt4rec"
    type_scale: bool = setting(
        False,
        "Whether to learn, for each event type, how much the item of an event weighs in the input.",
        "`true` for logs with several event types, such as views beside purchases.",
    )
    query_buckets: int = setting(
        0,
        "Buckets to which the n-grams of search queries are hashed; 0: queries are not read. Of a streaming encoder's "
        "history searches are no part, so it needs another `encoder`.",
        "2,048 or more for a log with searches, best with `encoder=behaviours`.",
        least=0,
        most=2**20,
    )
    query_vectors: int = setting(
        0,
        "How many of the most frequent queries have a vector beside their n-grams, made by the sentence encoder, which "
        "the training needs; 0: none. Serving knows these queries, and reads the n-grams alone of others.",
        "10,000 or more where people ask for one thing in many words.",
        least=0,
        most=2**20,
    )
    attribute_slots: int = setting(
        0,
        "Attributes of an item that `encoder_decoder` reads beside it: category, brand, price band, then the others, "
        "as many as fit. Attention among them, the item, type and time makes the vector of an event. 0: none.",
        "4 to 12 for items with good attributes, above all where many have few events.",
        least=0,
        most=64,
    )
    n_known_queries: int = 0  # queries that have a vector
    n_attribute_rows: int = 0  # rows of the attributes' embeddings, with that of the padding
    n_fields: int = 0  # slots of user features; they come first
    prompt_slot: int = -1  # slot whose values have soft prompts
    prompt_first: int = 0  # first row of that slot in the context table
    prompt_rows: int = 0  # number of its rows
    content: int = 0  # dimensions of the items' content vectors; 0: items are their ids and tokens

    @property
    def levels(self) -> int:
        """Number of tokens that name an item."""
        return len(self.code_sizes)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values, for `run.json`."""
        return asdict(self) | {"code_sizes": list(self.code_sizes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkConfig:
        """Reads what `to_json` wrote.

        Raises:
            TypeError: A field is unknown or missing. Nothing is filled in silently.
        """
        return cls(**(data | {"code_sizes": tuple(data["code_sizes"])}))


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 32, "layers": 2, "heads": 2, "d_head": 16, "d_ff": 64, "window": 8, "d_context": 8},
    "small": {"d_model": 128, "layers": 2, "heads": 4, "d_head": 32, "d_ff": 256, "window": 50},
    "base": {"d_model": 256, "layers": 4, "heads": 8, "d_head": 32, "d_ff": 1024, "window": 64},
    "large": {"d_model": 512, "layers": 8, "heads": 8, "d_head": 64, "d_ff": 2048, "window": 128},
}
