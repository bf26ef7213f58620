"""Embeds the events that every encoder graph reads: their items, types and times."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graphs.graph_writer import FLOAT, NetworkGraph
from model.network.gpt4rec import PERIODS_MS
from service.artifact.graphs import graph_names as names

MASKED = -30_000.0  # representable in float16, and far below any score


class EventGraph(NetworkGraph):
    """A graph that reads B rows of T events."""

    def embed(self) -> ir.Value:
        """Returns [B, T, d] item + type + gap + period."""
        value: ir.Value = self.op.Add(self.items(), self.features())
        return value

    def items(self) -> ir.Value:
        """Returns [B, T, d] item embeddings, scaled by event type if the network learned to."""
        op = self.op
        items: ir.Value = op.Gather(self.inputs[names.ITEM_TABLE], self.inputs[names.ITEM], axis=0)
        if self.config.type_scale:
            scale = op.Gather(self.weight("type_scale"), self.inputs[names.TYPE], axis=0)
            items = op.Mul(items, op.Unsqueeze(scale, self.ints(2)))
        if self.config.query_buckets and names.QUERY in self.inputs:
            items = op.Add(items, self.query_text())
        return items

    def query_text(self) -> ir.Value:
        """Returns [B, T, d] the queries: the sum of their n-grams over the root of their number.

        Known queries are rows behind those of the n-grams, with the projection folded in.
        """
        op, query = self.op, self.inputs[names.QUERY]
        if self.config.n_known_queries:
            known_rows = self._weights["known_query.vectors"] @ self._weights["known_query.project.weight"].T
            self._weights = {
                **self._weights, "query_rows": np.concatenate([self._weights["gram.weight"], known_rows])
            }  # fmt: skip
        known = self.cast(op.Greater(query, self.ints(0)), self.compute)
        rows = self.weight("query_rows" if self.config.n_known_queries else "gram.weight")
        grams = op.Gather(rows, query, axis=0)
        total = op.ReduceSum(op.Mul(grams, op.Unsqueeze(known, self.ints(3))), self.ints(2), keepdims=0)
        count = op.Max(op.ReduceSum(self.to_float(known), self.ints(2), keepdims=1), self.floats(1.0))
        # exp(−log(n) / 2), not 1 / √n: the table of CUDA kernels that graphs are checked against has both of these.
        root = op.Exp(op.Mul(op.Log(count), self.floats(-0.5)))
        value: ir.Value = op.Mul(total, self.to_compute(root))
        return value

    def features(self) -> ir.Value:
        """Returns [B, T, d] type + gap + period; zeros for the start token."""
        op, c = self.op, self.config
        kind = self.inputs[names.TYPE]
        x = op.Gather(self.weight("event_type.weight"), kind, axis=0)
        if c.has_time:
            x = op.Add(x, self.times())
        is_event = op.Less(kind, self.ints(c.n_types))
        value: ir.Value = op.Mul(x, op.Unsqueeze(self.cast(is_event, self.compute), self.ints(2)))
        return value

    def times(self) -> ir.Value:
        """Returns [B, T, d] embeddings of log(1 + gap to the event before) and of the phases of the periods."""
        op, time = self.op, self.inputs[names.TIME_MS]
        periods = np.array(PERIODS_MS, np.int64)
        phase = op.Mod(op.Unsqueeze(time, self.ints(2)), self.constant(periods, "periods"))
        turn = self.constant((2 * np.pi / periods).astype(np.float32), "turn")
        phase = op.Mul(self.cast(phase, FLOAT), turn)
        log_gap = op.Unsqueeze(self.log_seconds(op.Sub(time, self.inputs[names.PREVIOUS_MS])), self.ints(2))
        log_gap = op.Mul(log_gap, self.floats(0.1))
        both = self.to_compute(op.Concat(op.Sin(phase), op.Cos(phase), log_gap, axis=2))
        # The network's columns alternate between sine and cosine of each period.
        period = self._weights["period.weight"]
        columns = np.concatenate([period[:, 0::2], period[:, 1::2], self._weights["gap.weight"]], axis=1)
        self._weights = {**self._weights, "times.weight": columns}
        return self.linear(both, "times", bias=False)
