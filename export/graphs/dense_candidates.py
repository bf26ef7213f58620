"""Dense candidates: the best items by q · e over the whole catalogue, which join those of the beam.

A beam keeps what is likely at every level, so it may lose an item whose first tokens are unlikely, however well its
embedding fits. In a catalogue of moderate size the exhaustive score is one product. Its best items are ranked together
with the beam's, by the same blend; teacher forcing gives their path log-probabilities in the same run. The decoder and
the blend sampler have these candidates.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graphs.decoder_network import DecoderNetwork
from export.graphs.graph_writer import FLOAT
from service.artifact import graph_names as names
from service.artifact.graph_names import NEVER

# Above this many items the product over the catalogue would cost more than the beam: its time and memory traffic grow
# with the catalogue, the beam's do not.
DENSE_ITEMS_MAX = 100_000


def dense_by_rule(n_items: int) -> bool:
    """Returns whether dense candidates join the beam in a catalogue of `n_items`, unless the export says otherwise."""
    return n_items <= DENSE_ITEMS_MAX


class DenseCandidates:
    """Adds the nodes of the dense candidates to a decoder's graph."""

    def __init__(self, graph: DecoderNetwork) -> None:
        self._graph = graph
        self._inputs = graph.inputs

    def joined(
        self, q: ir.Value, begun: ir.Value, first: ir.Value, item: ir.Value, log_prob: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Appends the dense candidates to those of the beam.

        Args:
            q: [B, d] query.
            begun: [B, d] decoder state from which the first token is chosen.
            first: [B, V_0] log-probabilities of the first token.
            item: [B, 1, W] items of the beam, −1 where it has none.
            log_prob: [B, 1, W] log-probabilities of their paths.

        Returns:
            Items and path log-probabilities, [B, 1, W + D] each. A dense candidate that the beam already has gets the
            log-probability NEVER.
        """
        graph = self._graph
        op = graph.op
        best, found = self._best(q)
        beam = op.Transpose(item, perm=[0, 2, 1])
        same = graph.cast(op.Equal(beam, op.Unsqueeze(found, graph.ints(1))), FLOAT)
        twice = op.ReduceMax(same, graph.ints(1), keepdims=1)
        best = op.Add(op.Unsqueeze(best, graph.ints(1)), op.Mul(twice, graph.floats(NEVER)))
        alive = op.Greater(op.Add(best, self._inputs[names.JOIN]), graph.floats(NEVER / 2))
        path = op.Where(alive, self._path_log_prob(begun, first, found), graph.floats(NEVER))
        items = op.Concat(item, op.Unsqueeze(found, graph.ints(1)), axis=2)
        return items, op.Concat(log_prob, path, axis=2)

    def _best(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns scores and indices [B, D] of the best items by q · e that the row's filter and exclusions allow."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        score = graph.to_float(op.Gemm(q, inputs[names.ITEM_TABLE], transB=1))
        allowed = op.Gather(inputs[names.ITEM_OK], inputs[names.FILTER], axis=0)
        score = op.Where(allowed, score, graph.floats(NEVER))
        excluded, value = inputs[names.EXCLUDED_ITEM], inputs[names.EXCLUDED_VALUE]
        score = op.ScatterElements(score, excluded, value, axis=1, reduction="add")
        best, found = op.TopK(score, inputs[names.KEEP_DENSE], axis=1, _outputs=2)
        return best, found

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
        value: ir.Value = op.Reshape(log_prob, self._inputs[names.DENSE_SHAPE])
        return value

    def _tokens(self, found: ir.Value) -> list[ir.Value]:
        """Returns the tokens [B, D] of each level."""
        graph, levels = self._graph, self._graph.config.levels
        path = graph.op.Gather(self._inputs[names.ITEM_PATH], found, axis=0)
        columns = [path] if levels == 1 else graph.op.Split(path, axis=2, num_outputs=levels, _outputs=levels)
        return [graph.op.Squeeze(column, graph.ints(2)) for column in columns]
