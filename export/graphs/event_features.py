"""Attention among the features of one event, as `model.network.encoders.event_features` computes it."""

from __future__ import annotations

import onnx_ir as ir

from export.graphs.event_inputs import MASKED, EventGraph
from export.graphs.graph_writer import FLOAT
from service.artifact.graphs import graph_names as names


class FeatureGraph(EventGraph):
    """A graph that can make the vector of an event from its item, its type and time, and the item's attributes."""

    def event_vectors(self, items: ir.Value, name: str) -> ir.Value:
        """Returns [B, T, d] the vectors of the events.

        Args:
            items: [B, T, d] embedded items.
            name: Name of the module with the weights.
        """
        op, kind = self.op, self.inputs[names.TYPE]
        rows = op.Gather(self.inputs[names.ITEM_ATTRIBUTES], self.inputs[names.ITEM], axis=0)
        always = op.Add(op.Mul(op.Unsqueeze(kind, self.ints(2)), self.ints(0)), self.ints(1))
        known = op.Greater(op.Concat(always, always, rows, axis=2), self.ints(0))
        parts = [op.Unsqueeze(part, self.ints(2)) for part in (items, self.features())]
        x = op.Concat(*parts, self.attributes(rows), axis=2)
        mask = op.Unsqueeze(op.Where(known, self.floats(0.0), self.floats(MASKED)), self.ints(2, 3))
        y = op.Add(x, self._among(self.norm(x, f"{name}.norm"), mask, f"{name}.attention"))
        there = self.cast(known, FLOAT)
        share = op.Div(there, op.ReduceSum(there, self.ints(2), keepdims=1))
        weighted = op.Mul(y, op.Unsqueeze(self.to_compute(share), self.ints(3)))
        value: ir.Value = op.ReduceSum(weighted, self.ints(2), keepdims=0)
        return value

    def attributes(self, rows: ir.Value) -> ir.Value:
        """Returns [B, T, A, d] the embedded attributes of the rows [B, T, A]."""
        value: ir.Value = self.op.Gather(self.weight("attributes.value.weight"), rows, axis=0)
        return value

    def _among(self, x: ir.Value, mask: ir.Value, name: str) -> ir.Value:
        """Returns multi-head attention among the features x [B, T, F, d] of each event.

        Args:
            x: The features.
            mask: [B, T, 1, 1, F], added to the scores, which are in float32.
            name: Name of the module with the weights.
        """
        op, c = self.op, self.config
        n = 2 + c.attribute_slots

        def heads(part: str, perm: list[int]) -> ir.Value:
            split = op.Reshape(self.linear(x, f"{name}.{part}"), self.ints(0, 0, n, c.heads, c.d_head))
            transposed: ir.Value = op.Transpose(split, perm=perm)
            return transposed

        query, value = heads("query", [0, 1, 3, 2, 4]), heads("value", [0, 1, 3, 2, 4])
        score = self.to_float(op.MatMul(query, heads("key", [0, 1, 3, 4, 2])))
        weight = op.Softmax(op.Add(op.Mul(score, self.floats(c.d_head**-0.5)), mask), axis=-1)
        mixed = op.Transpose(op.MatMul(self.to_compute(weight), value), perm=[0, 1, 3, 2, 4])
        return self.linear(op.Reshape(mixed, self.ints(0, 0, n, c.heads * c.d_head)), f"{name}.out")
