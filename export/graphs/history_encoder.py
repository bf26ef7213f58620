"""`encoder.onnx` for encoders without a state: a whole history → h.

The computation is that of the encoder's own module in `model.network.encoders`, op by op from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.event_features import FeatureGraph
from export.graphs.event_inputs import MASKED
from export.graphs.graph_writer import FLOAT, INT, GraphDtype, graph_shape
from model.network.behaviour_streams import stream_of_types
from model.network.config import NetworkConfig
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names


def write_history_encoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `encoder.onnx`, whose interface is `service.artifact.graphs.encoder_interface.history_encoder`.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    HistoryGraph(config, weights, dtype).write(path)


class HistoryGraph(FeatureGraph):
    """One encoder over whole histories, chosen by the network's configuration."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = encoder_interface.history_encoder(graph_shape(config, dtype))
        super().__init__(f"{config.encoder}_encoder", interface, config, weights, dtype)

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        h = WRITERS[self.config.encoder](self)
        self.output(self.to_float(h), names.HIDDEN)
        self.save(path)

    # -- encoders: each returns h [B, d]

    def sasrec(self) -> ir.Value:
        """SASRec (Kang and McAuley, 2018): causal self-attention."""
        op = self.op
        position = self.inputs[names.POSITION]
        x = op.Add(self.embed(), self.positions(position))
        mask = self.causal(position)
        for layer in range(self.config.layers):
            name = f"encoder.blocks.{layer}"
            query = self.norm(x, f"{name}.norm_attention")
            attended = self.attention(query, x, mask, f"{name}.attention")
            x = self.norm(op.Add(query, attended), f"{name}.norm_ff")
            x = op.Add(x, self.linear(op.Relu(self.linear(x, f"{name}.up")), f"{name}.down"))
        return self.norm(self.at_last(x), "encoder.norm")

    def gru4rec(self) -> ir.Value:
        """GRU4Rec (Hidasi et al., 2016): the last state of a GRU."""
        x = self.recurrent("GRU", "encoder.gru")
        return self.linear(self.at_last(x), "encoder.out")

    def bert4rec(self) -> ir.Value:
        """BERT4Rec (Sun et al., 2019): bidirectional attention, with a hidden event behind the history."""
        op = self.op
        hidden = self.constant(self._weights["encoder.hidden"].astype(self.numpy_compute), "hidden")
        events = op.Where(self.inputs[names.ASKED], hidden, self.embed())
        x = op.Add(events, self.positions(self.inputs[names.POSITION]))
        mask = op.Unsqueeze(self.padding(), self.ints(1))
        for layer in range(self.config.layers):
            x = self.pre_norm(x, mask, f"encoder.blocks.{layer}")
        return self.norm(self.at_last(x), "encoder.norm")

    def lstm_attention(self) -> ir.Value:
        """An LSTM whose last state attends to all states (Bahdanau et al., 2015)."""
        op = self.op
        states = self.recurrent("LSTM", "encoder.lstm")
        last = self.at_last(states)
        pairs = op.Add(
            op.Unsqueeze(self.linear(last, "encoder.query"), self.ints(1)),
            self.linear(states, "encoder.key", bias=False),
        )
        score = self.to_float(self.linear(op.Tanh(pairs), "encoder.score", bias=False))
        score = op.Add(op.Transpose(score, perm=[0, 2, 1]), self.padding())
        weight = op.Softmax(score, axis=-1)
        self.attended(weight)
        weight = self.to_compute(weight)
        seen = op.Squeeze(op.MatMul(weight, states), self.ints(1))
        return self.linear(op.Concat(last, seen, axis=1), "encoder.out")

    def encoder_decoder(self) -> ir.Value:
        """A transformer encoder over types and times, or all features, and a decoder over items that attends to it."""
        op = self.op
        position = self.inputs[names.POSITION]
        positions, mask = self.positions(position), self.causal(position)
        items = self.items()
        about = self.event_vectors(items, "encoder.of_features") if self.config.attribute_slots else self.features()
        memory = op.Add(about, positions)
        for layer in range(self.config.layers):
            memory = self.pre_norm(memory, mask, f"encoder.reads.{layer}")
        memory = self.norm(memory, "encoder.read_norm")
        x = op.Add(items, positions)
        for layer in range(self.config.layers):
            x = self.pre_norm(x, mask, f"encoder.blocks.{layer}", memory)
        return self.norm(self.at_last(x), "encoder.norm")

    def gpt2rec(self) -> ir.Value:
        """GPT-2's blocks (Radford et al., 2019) over adapted events."""
        op = self.op
        position = self.inputs[names.POSITION]
        x = op.Add(self.linear(self.embed(), "encoder.adapt"), self.positions(position))
        mask = self.causal(position)
        for layer in range(self.config.layers):
            x = self.pre_norm(x, mask, f"encoder.blocks.{layer}", gelu="tanh")
        return self.norm(self.at_last(x), "encoder.norm")

    def behaviours(self) -> ir.Value:
        """Clicks, purchases and searches, each encoded by itself, and the weighted sum of their last states."""
        op = self.op
        x, position = self.embed(), self.inputs[names.POSITION]
        of_type = self.constant(np.array(stream_of_types(self.config.n_types), np.int64), "stream_of_types")
        stream = op.Gather(of_type, self.inputs[names.TYPE], axis=0)
        # The row of each history's last event also says where it is: row · T + n − 1.
        last = op.Unsqueeze(op.Gather(self.rows_of(position), self.inputs[names.LAST_ROW], axis=0), self.ints(1))
        logits = np.asarray(self._weights["encoder.share"], np.float64)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        parts = [
            op.Mul(self.stream_state(x, stream, position, last, s), self.to_compute(self.floats(float(share))))
            for s, share in enumerate(shares)
        ]
        value: ir.Value = op.Add(op.Add(parts[0], parts[1]), parts[2])
        return value

    def rows_of(self, position: ir.Value) -> ir.Value:
        """Returns [B · T] the position of each event of each history."""
        op = self.op
        value: ir.Value = op.Reshape(op.Add(op.Mul(self.inputs[names.TYPE], self.ints(0)), position), self.ints(-1))
        return value

    def stream_state(self, x: ir.Value, stream: ir.Value, position: ir.Value, last: ir.Value, s: int) -> ir.Value:
        """Returns [B, d] the state of one stream after each history.

        Args:
            x: [B, T, d] embedded events.
            stream: [B, T] the stream of each event.
            position: [T] = 0 … T − 1.
            last: [B, 1] position of each history's last event.
            s: The stream.
        """
        op = self.op
        mine = op.Equal(stream, self.ints(s))
        rank = op.Sub(op.CumSum(self.cast(mine, INT), self.scalar(1)), self.ints(1))
        y = op.Add(x, self.positions(op.Max(rank, self.ints(0))))
        rows, columns = op.Unsqueeze(position, self.ints(1)), op.Unsqueeze(position, self.ints(0))
        seen = op.And(op.Unsqueeze(mine, self.ints(1)), op.Unsqueeze(op.GreaterOrEqual(rows, columns), self.ints(0)))
        mask = op.Where(seen, self.floats(0.0), self.floats(MASKED))
        itself = op.Unsqueeze(op.Equal(rows, columns), self.ints(0))
        mask = op.Unsqueeze(op.Where(itself, self.floats(0.0), mask), self.ints(1))
        for layer in range(self.config.layers):
            y = self.pre_norm(y, mask, f"encoder.blocks.{s}.{layer}")
        counts = op.And(mine, op.LessOrEqual(op.Unsqueeze(position, self.ints(0)), last))  # not the padding
        newest = op.ReduceMax(op.Where(counts, position, self.ints(-1)), self.ints(1), keepdims=1)
        first_row = op.Sub(op.Unsqueeze(self.inputs[names.LAST_ROW], self.ints(1)), last)
        row = op.Squeeze(op.Add(first_row, op.Max(newest, self.ints(0))), self.ints(1))
        found = op.Gather(op.Reshape(y, self.ints(-1, self.config.d_model)), row, axis=0)
        found = self.norm(found, f"encoder.norm.{s}")
        empty = self.constant(self._weights["encoder.empty"][s].astype(self.numpy_compute), f"encoder.empty.{s}")
        state = op.Where(op.GreaterOrEqual(newest, self.ints(0)), found, empty)
        ago = op.Log(op.Add(self.cast(op.Sub(last, newest), FLOAT), self.floats(1.0)))
        age = self.constant(self._weights["encoder.age"][s][None].astype(np.float32), f"encoder.age.{s}")
        value: ir.Value = op.Add(state, self.to_compute(op.Mul(ago, age)))
        return value

    # -- parts of the encoders

    def attended(self, weight: ir.Value) -> None:
        """Called with the attention [B, 1, T] of the last state, for graphs that show it."""

    def read(self, name: str, weight: ir.Value) -> None:
        """Called with the attention [B, heads, T, T] of the layer of this name, for graphs that show it."""

    def positions(self, position: ir.Value) -> ir.Value:
        """Returns [T, d] learned position embeddings."""
        value: ir.Value = self.op.Gather(self.weight("encoder.position.weight"), position, axis=0)
        return value

    def causal(self, position: ir.Value) -> ir.Value:
        """Returns [1, 1, T, T], to be added to scores so that no event attends to a later one."""
        op = self.op
        seen = op.GreaterOrEqual(op.Unsqueeze(position, self.ints(1)), op.Unsqueeze(position, self.ints(0)))
        value: ir.Value = op.Unsqueeze(op.Where(seen, self.floats(0.0), self.floats(MASKED)), self.ints(0, 1))
        return value

    def padding(self) -> ir.Value:
        """Returns [B, 1, T], to be added to scores so that no event attends to padding."""
        value: ir.Value = self.op.Where(self.inputs[names.VALID], self.floats(0.0), self.floats(MASKED))
        return value

    def at_last(self, x: ir.Value) -> ir.Value:
        """Picks the last event of each history: [B, T, d] → [B, d]."""
        rows = self.op.Reshape(x, self.ints(-1, self.config.d_model))
        value: ir.Value = self.op.Gather(rows, self.inputs[names.LAST_ROW], axis=0)
        return value

    def pre_norm(
        self, x: ir.Value, mask: ir.Value, name: str, memory: ir.Value | None = None, *, gelu: str = "none"
    ) -> ir.Value:
        """Writes one pre-norm transformer layer, with cross-attention if there is a `memory` to attend to."""
        op = self.op
        y = self.norm(x, f"{name}.norm_attention")
        x = op.Add(x, self.attention(y, y, mask, f"{name}.attention"))
        if memory is not None:
            x = op.Add(x, self.attention(self.norm(x, f"{name}.norm_cross"), memory, mask, f"{name}.cross"))
        hidden = op.Gelu(self.linear(self.norm(x, f"{name}.norm_ff"), f"{name}.up"), approximate=gelu)
        value: ir.Value = op.Add(x, self.linear(hidden, f"{name}.down"))
        return value

    def attention(self, x: ir.Value, memory: ir.Value, mask: ir.Value, name: str) -> ir.Value:
        """Returns multi-head attention of x over `memory`; scores and softmax are in float32."""
        op, c = self.op, self.config

        def heads(y: ir.Value, part: str) -> ir.Value:
            split = op.Reshape(self.linear(y, f"{name}.{part}"), self.ints(0, 0, c.heads, c.d_head))
            transposed: ir.Value = op.Transpose(split, perm=[0, 2, 1, 3])
            return transposed

        query, key, value = heads(x, "query"), heads(memory, "key"), heads(memory, "value")
        score = self.to_float(op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2])))
        weight = op.Softmax(op.Add(op.Mul(score, self.floats(c.d_head**-0.5)), mask), axis=-1)
        self.read(name, weight)
        mixed = op.Transpose(op.MatMul(self.to_compute(weight), value), perm=[0, 2, 1, 3])
        return self.linear(op.Reshape(mixed, self.ints(0, 0, c.heads * c.d_head)), f"{name}.out")

    def recurrent(self, kind: str, name: str) -> ir.Value:
        """Returns the states [B, T, d] of the events.

        The recurrence is in float32, because its rounding errors add up along the history.
        """
        op, d = self.op, self.config.d_model
        # ONNX orders the gates z, r, h and i, o, f, c; torch orders them r, z, n and i, f, g, o.
        order = [1, 0, 2] if kind == "GRU" else [0, 3, 1, 2]
        x = op.Transpose(self.to_float(self.embed()), perm=[1, 0, 2])
        for layer in range(self.config.layers):

            def gates(part: str, layer: int = layer) -> npt.NDArray[np.float32]:
                array = np.asarray(self._weights[f"{name}.{part}_l{layer}"], np.float32)
                parts = array.reshape(len(order), d, *array.shape[1:])[order]
                return parts.reshape(array.shape)

            inputs, states = (
                self.constant(gates(part)[None], f"{name}.{part}.{layer}") for part in ("weight_ih", "weight_hh")
            )
            both = np.concatenate([gates("bias_ih"), gates("bias_hh")])[None]
            bias = self.constant(both, f"{name}.bias.{layer}")
            if kind == "GRU":
                x, _ = op.GRU(x, inputs, states, bias, hidden_size=d, linear_before_reset=1, _outputs=2)
            else:
                x, _, _ = op.LSTM(x, inputs, states, bias, hidden_size=d, _outputs=3)
            x = op.Squeeze(x, self.ints(1))
        return self.to_compute(op.Transpose(x, perm=[1, 0, 2]))


# Those that read the user's features: `export.graphs.user_encoder`.
WRITERS: dict[str, Callable[[HistoryGraph], ir.Value]] = {
    "sasrec": HistoryGraph.sasrec,
    "gru4rec": HistoryGraph.gru4rec,
    "bert4rec": HistoryGraph.bert4rec,
    "lstm_attention": HistoryGraph.lstm_attention,
    "encoder_decoder": HistoryGraph.encoder_decoder,
    "gpt2rec": HistoryGraph.gpt2rec,
    "behaviours": HistoryGraph.behaviours,
}
