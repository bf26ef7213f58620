"""The interfaces of `encoder.onnx` and `explainer.onnx`, for each kind of encoder."""

from __future__ import annotations

from collections.abc import Mapping

from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import GraphShape, Interface, Tensor, context, hidden, item_table
from service.artifact.graphs.state_layout import StateArray, StateLayout
from service.artifact.query_text import QUERY_GRAMS


def encoder(shape: GraphShape) -> Interface:
    """Returns the interface of `encoder.onnx` with a state: state and new events → next state and hidden state."""
    keys_values = ("batch", shape.layers, 2, shape.window, shape.d_head)
    rows, window = keys_values[:-1], ("batch", shape.window)
    quantised = shape.state_dtype == "int8"
    inputs = (
        Tensor(names.KV, shape.state_dtype, keys_values),
        *([Tensor(names.SCALE, "float32", rows)] if quantised else []),
        Tensor(names.PAST_TIME_MS, "int64", window),
        Tensor(names.FIRST_SLOT, "int64", ("batch", 1, 1)),
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        Tensor(names.KEPT_SLOT, "int64", window),
        Tensor(names.KEPT_ROW, "int64", rows),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        *_attention("all_slots"),
        item_table(shape),
    )
    outputs = (
        Tensor(names.NEXT_KV, shape.state_dtype, keys_values),
        *([Tensor(names.NEXT_SCALE, "float32", rows)] if quantised else []),
        Tensor(names.NEXT_TIME_MS, "int64", window),
        hidden(shape),
    )
    return Interface(inputs, outputs)


def step_encoder(shape: GraphShape, layout: StateLayout) -> Interface:
    """Returns the interface of `encoder.onnx` that was exported from the `step` of an encoder, with a state."""
    inputs = (
        *(_array(names.past_input(array.name), array) for array in layout.arrays),
        Tensor(names.N_VALID, "int64", ("batch",)),
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        *(_events(names.SESSION) if shape.session_ids else ()),
        Tensor(names.N_NEW, "int64", ("batch",)),
        item_table(shape),
    )
    outputs = (*(_array(names.next_output(array.name), array) for array in layout.arrays), hidden(shape))
    return Interface(inputs, outputs)


# What the last event read from a memory, of encoders that have one to show.
_READ_EVENTS = Tensor(names.READ_EVENTS, "float32", ("batch", "events"))
_MEMORY_READ: Mapping[str, tuple[Tensor, ...]] = {
    "memory_bank": (_READ_EVENTS, Tensor(names.READ_SLOTS, "float32", ("batch", "slots"))),
    "hierarchy": (
        _READ_EVENTS,
        Tensor(names.READ_SESSIONS, "int64", ("batch", "events")),
        Tensor(names.READ_HORIZONS, "float32", ("batch", "horizons")),
    ),
}


def step_explainer(shape: GraphShape, layout: StateLayout) -> Interface:
    """Returns the interface of `explainer.onnx` that was exported from the `step` of an encoder.

    It is that of the encoder, with the amount of each new event and, where the encoder has one, what it read from its
    memory.
    """
    encoder = step_encoder(shape, layout)
    amount = Tensor(names.AMOUNT, "float32", ("batch", "events"))
    return Interface((*encoder.inputs, amount), (*encoder.outputs, *_MEMORY_READ.get(shape.encoder, ())))


def _array(name: str, array: StateArray) -> Tensor:
    return Tensor(name, array.dtype, ("batch", *array.shape))


# What an encoder without a state reads beside the events.
_POSITION = Tensor(names.POSITION, "int64", ("events",))
_VALID = Tensor(names.VALID, "bool", ("batch", 1, "events"))
_QUERY = Tensor(names.QUERY, "int64", ("batch", "events", QUERY_GRAMS))
_HISTORY_INPUTS: Mapping[str, tuple[Tensor, ...]] = {
    "sasrec": (_POSITION,),
    "gru4rec": (),
    "bert4rec": (Tensor(names.ASKED, "bool", ("batch", "events", 1)), _POSITION, _VALID),
    "lstm_attention": (_VALID,),
    "encoder_decoder": (_POSITION,),
    "gpt2rec": (_POSITION,),
    "behaviours": (_POSITION,),
}
# Encoders that read the user's features, and the slots of their attention: the prefix token has one of its own.
_USER_SLOTS: Mapping[str, str] = {"prefix": "slots", "injected": "events"}


def history_encoder(shape: GraphShape) -> Interface:
    """Returns the interface of `encoder.onnx` without a state: a whole history → hidden state.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    inputs = (
        *_events(names.ITEM, names.TYPE),
        *(_events(names.TIME_MS, names.PREVIOUS_MS) if shape.has_time else []),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        item_table(shape),
        *_history_inputs(shape),
        *([_QUERY] if shape.query_buckets else []),
        *([Tensor(names.ITEM_ATTRIBUTES, "int64", ("rows", shape.attribute_slots))] if shape.attribute_slots else []),
    )
    return Interface(inputs, (hidden(shape),))


def _history_inputs(shape: GraphShape) -> tuple[Tensor, ...]:
    """What the encoder reads beside the events and the item table."""
    slots = _USER_SLOTS.get(shape.encoder)
    if slots is None:
        return _HISTORY_INPUTS[shape.encoder]
    near, *others = _attention(slots)
    return (context(shape), Tensor(near.name, near.dtype, (1, slots, slots)), *others)


def explainer(shape: GraphShape) -> Interface:
    """Returns the interface of `explainer.onnx`: a whole history → attention by event, and hidden state."""
    inputs = (
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        Tensor(names.LAST, "float32", ("batch", 1, "events")),
        *_attention("events"),
        item_table(shape),
    )
    return Interface(inputs, (Tensor(names.WEIGHT, "float32", ("batch", "events")), hidden(shape)))


# Encoders without a state whose explainer shows their attention: that of the last state, or rolled out over the layers.
ROLLED_OUT = frozenset({"sasrec", "bert4rec", "encoder_decoder", "gpt2rec"})
_SHOW_ATTENTION = ROLLED_OUT | {"lstm_attention"}


def history_explainer(shape: GraphShape) -> Interface:
    """Returns the interface of `explainer.onnx` without a state: a whole history → attention by event, hidden state.

    An encoder that has no such attention takes the amount of each event instead, and outputs the hidden state alone.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    encoder = history_encoder(shape)
    by_event = ("batch", "events")
    if shape.encoder in _SHOW_ATTENTION:
        return Interface(encoder.inputs, (Tensor(names.WEIGHT, "float32", by_event), *encoder.outputs))
    return Interface((*encoder.inputs, Tensor(names.AMOUNT, "float32", by_event)), encoder.outputs)


def _events(*wanted: str) -> list[Tensor]:
    return [Tensor(name, "int64", ("batch", "events")) for name in wanted]


def _attention(slots: str) -> list[Tensor]:
    return [
        Tensor(names.NEAR, "bool", (1, "events", slots)),
        Tensor(names.SLOT, "int64", (1, 1, slots)),
        Tensor(names.SCORES, "int64", (4,)),
        Tensor(names.FOLDED, "int64", (3,)),
    ]
