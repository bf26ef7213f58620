"""Candidates that join those of the beam: the best by what is known of their score without the path.

A beam keeps what is likely at every level, so it may lose an item whose first tokens are unlikely, however well its
vector or the user's signals speak for it. What the signals add to an item's score needs no path, and neither does
q · e, which estimates the path's log-probability as well: up to a constant of the row an item *promises*

    (w_path + w_dense) · q · e + bias + signals

A catalogue of moderate size is scored as a whole, in one product; in a larger one the items with signals are, and those
of the best cells (`export.graphs.cell_candidates`). The best are ranked together with the beam's, by the same fused
score; teacher forcing gives the log-probabilities of their paths in the same run. Decoder and sampler have these
candidates.
"""

from __future__ import annotations

import abc

import onnx_ir as ir

from export.graphs.decoder_network import DecoderNetwork
from export.graphs.graph_writer import FLOAT
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER

# Above this many items the product over the catalogue would cost more than the beam: its time and memory traffic grow
# with the catalogue, the beam's do not.
DENSE_ITEMS_MAX = 100_000


def dense_by_rule(n_items: int) -> bool:
    """Returns whether the graphs score the whole catalogue of `n_items`, unless the export says otherwise."""
    return n_items <= DENSE_ITEMS_MAX


class JoiningCandidates(abc.ABC):
    """Adds the nodes of the candidates beside the beam's to a decoder's graph."""

    def __init__(self, graph: DecoderNetwork) -> None:
        self._graph = graph
        self._inputs = graph.inputs

    @abc.abstractmethod
    def best(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns what the D best items promise, and the items, [B, D] each; NEVER where there is no such item.

        Args:
            q: [B, d] query.
        """

    @abc.abstractmethod
    def scores(self, q: ir.Value, item: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns q · e, and what bias and signals add, for items [B, 1, C]: [B, 1, C] each. Call `best` before.

        They mean nothing where `item` holds no allowed item.
        """

    def joined(
        self, q: ir.Value, begun: ir.Value, first: ir.Value, item: ir.Value, log_prob: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Appends these candidates to those of the beam.

        Args:
            q: [B, d] query.
            begun: [B, d] decoder state from which the first token is chosen.
            first: [B, V_0] log-probabilities of the first token.
            item: [B, 1, W] items of the beam, −1 where it has none.
            log_prob: [B, 1, W] log-probabilities of their paths.

        Returns:
            Items and path log-probabilities, [B, 1, W + D] each. A candidate that the beam already has gets the
            log-probability NEVER.
        """
        graph = self._graph
        op = graph.op
        best, found = self.best(q)
        same = graph.cast(op.Equal(op.Unsqueeze(found, graph.ints(2)), item), FLOAT)
        twice = op.ReduceMax(same, graph.ints(2), keepdims=0)
        best = op.Unsqueeze(op.Add(best, op.Mul(twice, graph.floats(NEVER))), graph.ints(1))
        alive = op.Greater(op.Add(best, self._inputs[names.JOIN]), graph.floats(NEVER / 2))
        path = op.Where(alive, self._path_log_prob(begun, first, found), graph.floats(NEVER))
        items = op.Concat(item, op.Unsqueeze(found, graph.ints(1)), axis=2)
        return items, op.Concat(log_prob, path, axis=2)

    def dense(self, q: ir.Value, item: ir.Value) -> ir.Value:
        """Returns q · e of items [B, n] in float32: [B, n]."""
        graph = self._graph
        op = graph.op
        vectors = graph.to_float(op.Gather(self._inputs[names.ITEM_TABLE], item, axis=0))
        value: ir.Value = op.Squeeze(op.MatMul(vectors, op.Unsqueeze(graph.to_float(q), graph.ints(2))), graph.ints(2))
        return value

    def dense_weight(self) -> ir.Value:
        """Returns [B, 1] the weight of q · e where it stands for the path's log-probability too."""
        value: ir.Value = self._graph.op.ReduceSum(self._inputs[names.WEIGHTS], self._graph.ints(1), keepdims=1)
        return value

    def _path_log_prob(self, begun: ir.Value, first: ir.Value, found: ir.Value) -> ir.Value:
        """Returns log p(path) [B, 1, D] by teacher forcing: each state follows the tokens of its item."""
        graph = self._graph
        op, levels, d = graph.op, graph.config.levels, graph.config.d_model
        tokens = self._tokens(found)
        log_prob = op.Reshape(op.GatherElements(first, tokens[0], axis=1), graph.ints(-1, 1))
        state: ir.Value | None = None
        for level in range(1, levels):
            embedding = op.Gather(graph.weight(f"level_token.{level - 1}.weight"), tokens[level - 1], axis=0)
            if state is None:
                embedding = op.Add(embedding, op.Unsqueeze(begun, graph.ints(1)))
            embedding = op.Reshape(embedding, graph.ints(-1, d))
            state = graph.advance(level, embedding if state is None else op.Add(state, embedding))
            token = op.Reshape(tokens[level], graph.ints(-1, 1))
            log_prob = op.Add(log_prob, op.GatherElements(graph.token_log_probs(level, state), token, axis=1))
        value: ir.Value = op.Reshape(log_prob, self._inputs[names.JOINED_SHAPE])
        return value

    def _tokens(self, found: ir.Value) -> list[ir.Value]:
        """Returns the tokens [B, D] of each level."""
        graph, levels = self._graph, self._graph.config.levels
        path = graph.op.Gather(self._inputs[names.ITEM_PATH], found, axis=0)
        columns = [path] if levels == 1 else graph.op.Split(path, axis=2, num_outputs=levels, _outputs=levels)
        return [graph.op.Squeeze(column, graph.ints(2)) for column in columns]


class CatalogueCandidates(JoiningCandidates):
    """The best of the whole catalogue."""

    _dense: ir.Value  # [B, rows] q · e
    _promised: ir.Value  # [B, rows] what each item promises; NEVER where it may not be listed
    _weight: ir.Value  # [B, 1]

    def best(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns the best items that the row's filter and exclusions allow."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        self._dense = graph.to_float(op.Gemm(q, inputs[names.ITEM_TABLE], transB=1))
        self._weight = self.dense_weight()
        bias = op.Gather(inputs[names.ITEM_BIAS], inputs[names.GROUP], axis=0)
        promised = op.Add(op.Mul(self._dense, self._weight), bias)
        allowed = op.Gather(inputs[names.ITEM_OK], inputs[names.FILTER], axis=0)
        # To choose between two numbers and add takes half the time of a choice between many.
        promised = op.Add(promised, op.Where(allowed, graph.floats(0.0), graph.floats(NEVER)))
        item = op.Concat(inputs[names.EXCLUDED_ITEM], inputs[names.SIGNAL_ITEM], axis=1)
        value = op.Concat(inputs[names.EXCLUDED_VALUE], inputs[names.SIGNAL_VALUE], axis=1)
        self._promised = op.ScatterElements(promised, item, value, axis=1, reduction="add")
        best, found = op.TopK(self._promised, inputs[names.KEEP_JOINED], axis=1, _outputs=2)
        return best, found

    def scores(self, q: ir.Value, item: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Reads both off the scores of the whole catalogue."""
        graph = self._graph
        op = graph.op
        at = op.Squeeze(item, graph.ints(1))
        dense = op.GatherElements(self._dense, at, axis=1)
        # The same product as in `best`, so that without bias and signals the difference is exactly 0.
        added = op.Sub(op.GatherElements(self._promised, at, axis=1), op.Mul(dense, self._weight))
        # A product in half precision is good enough to choose candidates, but not to rank them.
        exact = dense if graph.compute == FLOAT else self.dense(q, at)
        return op.Unsqueeze(exact, graph.ints(1)), op.Unsqueeze(added, graph.ints(1))


class SignalCandidates(JoiningCandidates):
    """The best of the items with signals: nothing here grows with the catalogue."""

    def best(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns the best of `SIGNAL_ITEM`, all of which the row's filter and exclusions allow."""
        op, item = self._graph.op, self._inputs[names.SIGNAL_ITEM]
        best, place = op.TopK(self._promised(q), self._inputs[names.KEEP_JOINED], axis=1, _outputs=2)
        return best, op.GatherElements(item, place, axis=1)

    def _promised(self, q: ir.Value) -> ir.Value:
        """Returns [B, M] what the items with signals promise, NEVER in the padding."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        item, value = inputs[names.SIGNAL_ITEM], inputs[names.SIGNAL_VALUE]
        promised = op.Mul(self.dense(q, item), self.dense_weight())
        promised = op.Add(op.Add(promised, self._bias(item)), value)
        known: ir.Value = op.Where(op.Equal(value, graph.floats(0.0)), graph.floats(NEVER), promised)
        return known

    def scores(self, q: ir.Value, item: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Finds the signals of the items by comparing them with all of `SIGNAL_ITEM`."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        at = op.Squeeze(item, graph.ints(1))
        known = op.Unsqueeze(inputs[names.SIGNAL_ITEM], graph.ints(1))
        match = graph.cast(op.Equal(op.Unsqueeze(at, graph.ints(2)), known), FLOAT)
        signal = op.Squeeze(op.MatMul(match, op.Unsqueeze(inputs[names.SIGNAL_VALUE], graph.ints(2))), graph.ints(2))
        added = op.Add(signal, self._bias(at))
        return op.Unsqueeze(self.dense(q, at), graph.ints(1)), op.Unsqueeze(added, graph.ints(1))

    def _bias(self, item: ir.Value) -> ir.Value:
        """Returns the bias of items [B, n] in the group of their row."""
        op = self._graph.op
        value: ir.Value = op.Gather(self._inputs[names.ITEM_BIAS], op.Add(item, self._inputs[names.GROUP]), axis=0)
        return value
