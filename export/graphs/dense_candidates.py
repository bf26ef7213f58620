"""Dense candidates of the decoder, and of the sampler that draws from them: the best items by q · e over the whole
catalogue join the beam's.

A beam keeps what is likely at every level and may lose an item whose first tokens are unlikely, however well its
embedding fits. Over a catalogue of moderate size the exhaustive score is one product, so its best items are ranked
together with the beam's, by the same blend; their path log-probability is found by teacher forcing in the same run.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graphs.decoder_network import DecoderNetwork
from export.graphs.graph_writer import FLOAT
from service.artifact import graph_names as names
from service.artifact.graph_names import NEVER

# Above this many items the product over the catalogue would cost more than the beam: time and memory traffic grow with
# the catalogue, where those of the beam do not.
DENSE_ITEMS_MAX = 100_000


def dense_by_rule(n_items: int) -> bool:
    """Whether dense candidates join the beam in a catalogue of this size."""
    return n_items <= DENSE_ITEMS_MAX


class DenseCandidates:
    """Adds the nodes of the dense candidates to a decoder's graph."""

    def __init__(self, graph: DecoderNetwork) -> None:
        self._graph = graph
        self._inputs = graph.inputs

    def joined(
        self, q: ir.Value, begun: ir.Value, first: ir.Value, item: ir.Value, log_prob: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Items [B, 1, W] and path log-probabilities of the beam, with the D dense ones behind them: [B, 1, W + D].

        `item` is −1 where the beam has none; `begun` [B, d] is the state that the first token is chosen from, `first`
        [B, V_0] are its log-probabilities. An item that the beam has already is NEVER in the second place.
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
        """Scores and indices [B, D] of the items with the largest q · e that the row's filter and exclusions leave."""
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
        """log p(path) [B, 1, D] by teacher forcing: each state goes down its item's own tokens."""
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
        """The tokens [B, D] of each level."""
        graph, levels = self._graph, self._graph.config.levels
        path = graph.op.Gather(self._inputs[names.ITEM_PATH], found, axis=0)
        columns = [path] if levels == 1 else graph.op.Split(path, axis=2, num_outputs=levels, _outputs=levels)
        return [graph.op.Squeeze(column, graph.ints(2)) for column in columns]
