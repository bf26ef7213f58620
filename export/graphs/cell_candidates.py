"""Candidates by cell: the best items of the best cells join, so that a large catalogue needs no pass over all vectors.

All cells are scored in one product (`service.artifact.graphs.cells`), those without an allowed item are closed, and the
best are read: so many that their allowed items fill R rows if they are as large as the mean, and a quarter more. How
many of a cell's items a filter allows, and at which places, lies on the device for each filter: two running sums lay
the allowed items of the cells read side by side, whatever the filter leaves of them. A filter that leaves R items or
fewer has all of them read. The items are compared in few dimensions, which reads little memory, and the best of them
scored like those of a whole catalogue, with the items with signals beside them.

An item that is excluded, or that is scored for its own sake because it has signals, is closed where its cell lies among
the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from export.graphs.candidates import CatalogueCandidates, JoiningCandidates, SignalCandidates
from export.graphs.decoder_network import DecoderNetwork
from export.graphs.graph_writer import FLOAT, INT
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER


def joining_candidates(graph: DecoderNetwork) -> JoiningCandidates:
    """Returns the candidates that the graph's interface asks for."""
    if names.ITEM_OK in graph.inputs:
        return CatalogueCandidates(graph)
    return CellCandidates(graph) if names.CELL_VECTOR in graph.inputs else SignalCandidates(graph)


@dataclass(frozen=True)
class Read:
    """The cells that are read, P of each row, best first.

    Attributes:
        cell: [B, P] their numbers.
        begin: [B, P] rows that are filled by the cells before.
        end: [B, P] rows that are filled with the cell.
        first: [B, P] allowed items in the cells of smaller numbers.
        begin_of: [B, C] `begin` of each cell, R where it is not read; float32.
    """

    cell: ir.Value
    begin: ir.Value
    end: ir.Value
    first: ir.Value
    begin_of: ir.Value


class CellCandidates(SignalCandidates):
    """The best of the best cells, and of the items with signals."""

    def best(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns the best items that the row's filter and exclusions allow."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        short = op.Mul(op.MatMul(graph.to_float(q), inputs[names.QUERY_BASIS]), self.dense_weight())
        item, promised = self._nearly_best(short, self._read(self._cell_scores(q, short)))
        exact = op.Add(op.Mul(self.dense(q, item), self.dense_weight()), self._bias(item))
        exact = op.Where(op.Greater(promised, graph.floats(NEVER / 2)), exact, graph.floats(NEVER))
        promised = op.Concat(exact, self._promised(q), axis=1)
        item = op.Concat(item, inputs[names.SIGNAL_ITEM], axis=1)
        best, place = op.TopK(promised, inputs[names.KEEP_JOINED], axis=1, _outputs=2)
        return best, op.GatherElements(item, place, axis=1)

    def _nearly_best(self, short: ir.Value, read: Read) -> tuple[ir.Value, ir.Value]:
        """Returns the best of the items read, in few dimensions, and what they promise, NEVER if they are closed."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        leaf, known = self._leaves(read)
        vectors = op.Gather(inputs[names.LEAF_VECTOR], leaf, axis=0)
        dense = op.Squeeze(op.MatMul(vectors, op.Unsqueeze(short, graph.ints(2))), graph.ints(2))
        # By leaf, like the vectors: what lies side by side is read at once.
        at = op.Add(leaf, self._times(names.CELL_GROUP, names.LEAF_STRIDE))
        promised = op.Add(dense, op.Gather(inputs[names.LEAF_BIAS], at, axis=0))
        promised = self._closed(read, op.Where(known, promised, graph.floats(NEVER)))
        promised, place = op.TopK(promised, inputs[names.KEEP_EXACT], axis=1, _outputs=2)
        return op.Gather(inputs[names.LEAF_ITEM], op.GatherElements(leaf, place, axis=1), axis=0), promised

    def _cell_scores(self, q: ir.Value, short: ir.Value) -> ir.Value:
        """Returns [B, C] what the cells promise, NEVER for those without an allowed item.

        Args:
            q: [B, d] query.
            short: [B, r] the same in few dimensions, times its weight.
        """
        graph, inputs = self._graph, self._inputs
        op = graph.op
        q = graph.to_float(q)
        length = op.Sqrt(op.ReduceSum(op.Mul(q, q), graph.ints(1), keepdims=1))
        added = op.Gather(inputs[names.CELL_BIAS], inputs[names.CELL_GROUP], axis=0)
        added = op.Add(added, op.Mul(op.Mul(length, self.dense_weight()), inputs[names.CELL_SPREAD]))
        score = op.Gemm(short, inputs[names.CELL_VECTOR], added, transB=1)
        is_open = op.Gather(inputs[names.CELL_OPEN], inputs[names.FILTER], axis=0)
        value: ir.Value = op.Add(score, op.Where(is_open, graph.floats(0.0), graph.floats(NEVER)))
        return value

    def _read(self, score: ir.Value) -> Read:
        """Returns the cells that are read, for scores [B, C]."""
        graph, inputs = self._graph, self._inputs
        op = graph.op
        _, cell = op.TopK(score, inputs[names.KEEP_CELLS], axis=1, _outputs=2)
        at = op.Add(cell, self._times(names.FILTER, names.CELL_STRIDE))
        first = graph.cast(op.Gather(inputs[names.CELL_FIRST], at, axis=0), INT)
        after = graph.cast(op.Gather(inputs[names.CELL_FIRST], op.Add(at, graph.ints(1)), axis=0), INT)
        # A row's cells depend on its own filter, whatever the other rows of the batch read.
        own = op.Less(inputs[names.CELL_RANK], inputs[names.CELLS_READ])
        count = op.Where(own, op.Sub(after, first), graph.ints(0))
        end = op.CumSum(count, graph.scalar(1))
        begin = op.Sub(end, count)
        nowhere = op.Add(op.Mul(score, graph.floats(0.0)), graph.cast(self._last(), FLOAT))
        begin_of = op.ScatterElements(nowhere, cell, graph.cast(begin, FLOAT), axis=1)
        return Read(cell, begin, end, first, begin_of)

    def _leaves(self, read: Read) -> tuple[ir.Value, ir.Value]:
        """Returns the leaves of the rows [B, R + 1], and which rows hold one."""
        graph, inputs = self._graph, self._inputs
        op, slot = graph.op, inputs[names.CELL_SLOT]
        # At each row, how many cells have ended: that is the place of its cell among those read.
        total = op.ReduceMax(read.end, graph.ints(1), keepdims=1)
        known = op.Less(slot, op.Min(total, self._last()))
        nothing = op.Mul(graph.cast(total, FLOAT), inputs[names.CELL_NOTHING])
        ended = op.Min(read.end, self._last())
        one = op.Add(op.Mul(graph.cast(ended, FLOAT), graph.floats(0.0)), graph.floats(1.0))
        ends = op.ScatterElements(nothing, ended, one, axis=1, reduction="add")
        place = graph.cast(op.CumSum(ends, graph.scalar(1)), INT)
        # The rows behind the last cell read any item.
        place = op.Where(known, place, graph.ints(0))
        first = op.Add(op.Sub(read.first, read.begin), self._times(names.FILTER, names.LEAF_STRIDE))
        allowed = op.Where(known, op.Add(op.GatherElements(first, place, axis=1), slot), graph.ints(0))
        within_cell = graph.cast(op.Gather(inputs[names.CELL_PLACE], allowed, axis=0), INT)
        cell_leaf = op.GatherElements(op.Gather(inputs[names.CELL_LEAF], read.cell, axis=0), place, axis=1)
        return op.Where(known, op.Add(cell_leaf, within_cell), graph.ints(0)), known

    def _closed(self, read: Read, promised: ir.Value) -> ir.Value:
        """Returns `promised` [B, R + 1] with NEVER at excluded items and at items with signals."""
        graph, inputs = self._graph, self._inputs
        op, added = graph.op, inputs[names.SIGNAL_VALUE]
        signal = op.Where(op.Equal(added, graph.floats(0.0)), graph.floats(0.0), graph.floats(NEVER))
        cell, place, closed = (
            op.Concat(inputs[excluded], of_signal, axis=1)
            for excluded, of_signal in (
                (names.EXCLUDED_CELL, inputs[names.SIGNAL_CELL]),
                (names.EXCLUDED_PLACE, inputs[names.SIGNAL_PLACE]),
                (names.EXCLUDED_VALUE, signal),
            )
        )
        at = op.Add(graph.cast(op.GatherElements(read.begin_of, cell, axis=1), INT), place)
        value: ir.Value = op.ScatterElements(promised, op.Min(at, self._last()), closed, axis=1, reduction="add")
        return value

    def _last(self) -> ir.Value:
        """Returns [1, 1] the number R of rows, which is the place of what is not read."""
        op, graph = self._graph.op, self._graph
        value: ir.Value = op.ReduceMax(self._inputs[names.CELL_SLOT], graph.ints(1), keepdims=1)
        return value

    def _times(self, rows: str, stride: str) -> ir.Value:
        """Returns [B, 1] a number of each row, times a stride."""
        op = self._graph.op
        value: ir.Value = op.Unsqueeze(op.Mul(self._inputs[rows], self._inputs[stride]), self._graph.ints(1))
        return value
