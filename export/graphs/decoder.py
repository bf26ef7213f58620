"""`decoder.onnx`: the complete constrained decode of a batch of deterministic lists (beam, greedy) in one run.

The K levels are unrolled. Each level scores the children of the nodes it kept, masks those that are not allowed, and
keeps the best `keep_l`. After the last level other candidates join the survivors (`export.graphs.candidates`), and all
of them are ranked by the fused score: the path's log-probability, q · e, and the signals that are no part of the
network. The catalogue is an input: children in CSR form, the nodes that each filter allows, item embeddings, and the
signals of items. `model/reference/decoder.py` does the same in plain loops.

At these sizes the cost of a run is its number of nodes. So everything that does not depend on the request (shapes, row
offsets, child counts) is an input that stays on the device, and beams are rows of matrices: B rows of W beams are BW
rows. `export.graphs.sampler` adds what sampled lists need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.cell_candidates import joining_candidates
from export.graphs.decoder_network import DecoderNetwork
from export.graphs.graph_writer import FLOAT, INT, INT32, GraphDtype, graph_shape
from model.network.config import NetworkConfig
from service.artifact.graphs import decoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import Interface
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.level_tables import token_dtype


def write_decoder(
    config: NetworkConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    path: Path,
    dtype: GraphDtype,
    *,
    dense: bool = False,
    cells: bool = False,
) -> None:
    """Writes `decoder.onnx`; `service.artifact.graphs.decoder_interface.decoder` describes its inputs and outputs.

    Args:
        config: The network's shape.
        weights: The network's weights by name.
        path: Where to write the graph.
        dtype: The graph's precision.
        dense: Whether the graph scores the whole catalogue (`export.graphs.candidates`).
        cells: Whether it scores the best cells of it instead (`export.graphs.cell_candidates`).
    """
    interface = decoder_interface.decoder(graph_shape(config, dtype), dense=dense, cells=cells)
    DecoderGraph(interface, config, weights, dtype).write(path)


@dataclass(frozen=True)
class Beam:
    """What is kept between levels.

    Attributes:
        node: [BW] nodes.
        log_prob: [BW, 1] log-probabilities of their paths, NEVER where there is no node.
        state: [BW, d] decoder states.
    """

    node: ir.Value
    log_prob: ir.Value
    state: ir.Value


@dataclass(frozen=True)
class Children:
    """Candidates of a level.

    Attributes:
        node: [BW, C] nodes; None at levels that are looked up by rows, where only those of survivors are, and at the
            root, where a child's node is its place.
        log_prob: [B, 1, WC] log-probabilities of the paths, NEVER where there is no such child or it may not be listed.
    """

    node: ir.Value | None
    log_prob: ir.Value


@dataclass(frozen=True)
class Choice:
    """Survivors of a level, best first: path log-probability and place among the candidates, [B, 1, W] each."""

    log_prob: ir.Value
    index: ir.Value


class _Chosen:
    """The survivors of a level ≥ 1: what is asked of them is added to the graph, [B, 1, W] each."""

    def __init__(self, graph: DecoderGraph, level: int, choice: Choice) -> None:
        self._op, self._slots = graph.op, graph.level_input(names.N_SLOTS, level)
        self.flat = graph.op.Add(choice.index, graph.level_input(names.ROW_BASE, level))  # among all candidates
        self.alive = graph.op.Greater(choice.log_prob, graph.floats(NEVER / 2))

    @cached_property
    def parent(self) -> ir.Value:
        """Their parents' places in the beam."""
        value: ir.Value = self._op.Div(self.flat, self._slots)
        return value

    @cached_property
    def slot(self) -> ir.Value:
        """Their own places among their parents' children."""
        value: ir.Value = self._op.Mod(self.flat, self._slots)
        return value


class DecoderGraph(DecoderNetwork):
    """The decode, level by level.

    The interface determines which levels are looked up by rows, and whether the whole catalogue is scored.
    """

    name = "gpt4rec_decoder"
    first: ir.Value  # log-probabilities [B, V_0] of the first token

    def __init__(
        self,
        interface: Interface,
        config: NetworkConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        dtype: GraphDtype,
    ) -> None:
        super().__init__(self.name, interface, config, weights, dtype)
        self.candidates = joining_candidates(self)

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        q = self.query()
        children = self.root_children(q)
        choice = self.choose(0, children)
        beam = None
        for level in range(1, self.config.levels):
            beam = self.survivors(level - 1, beam, children, choice)
            children = self.children(level, beam)
            choice = self.choose(level, children)
        self.rank(beam, children, choice, q)
        self.save(path)

    def root_children(self, q: ir.Value) -> Children:
        """Returns the root's children: all nodes of level 1 in order, so that a child's place is its node."""
        op = self.op
        self.begun = self.advance(0, q)
        self.first = self.token_log_probs(0, self.begun)
        token_log_prob = op.Gather(self.first, self.level_input(names.TOKEN, 0), axis=1)
        ok = op.Gather(self.level_input(names.NODE_OK, 0), self.inputs[names.FILTER], axis=0)
        log_prob = op.Unsqueeze(op.Where(ok, token_log_prob, self.floats(NEVER)), self.ints(1))
        closed, value = (self.level_input(name, 0) for name in (names.CLOSED_SLOT, names.CLOSED_VALUE))
        log_prob = op.ScatterElements(log_prob, closed, value, axis=2, reduction="add")
        return Children(None, log_prob)

    def children(self, level: int, beam: Beam) -> Children:
        """Returns all children of the kept nodes, up to C of each."""
        op = self.op
        log_probs = self.token_log_probs(level, beam.state)
        at = op.Add(beam.node, self.level_input(names.NODE_BASE, level))
        child = None
        if level_input(names.ROW_OK, level) in self.inputs:
            log_prob = self.open_by_token(level, op.Add(log_probs, beam.log_prob), at)
        else:
            token, child = self.children_in_order(level, beam)
            token_log_prob = op.GatherElements(log_probs, token, axis=1)
            log_prob = self.open_by_place(level, op.Add(token_log_prob, beam.log_prob), at)
        return Children(child, self.close(level, beam, log_prob))

    def children_in_order(self, level: int, beam: Beam) -> tuple[ir.Value, ir.Value | None]:
        """Returns the tokens of the children [BW, C], and their nodes where they had to be looked up for that."""
        op = self.op
        if level_input(names.ROW_TOKEN, level) in self.inputs:
            token = op.Gather(self.level_input(names.ROW_TOKEN, level), beam.node, axis=0)
            return token if token_dtype(self.config.code_sizes[level]) == "int32" else self.cast(token, INT32), None
        first = op.Gather(self.level_input(names.FIRST, level), beam.node, axis=0)
        child = op.Add(first, self.level_input(names.SLOTS, level))
        child = op.Min(child, self.level_input(names.LAST_NODE, level))
        return op.Gather(self.level_input(names.TOKEN, level), child, axis=0), child

    def open_by_token(self, level: int, log_prob: ir.Value, at: ir.Value) -> ir.Value:
        """Adds NEVER to children [BW, V] by token that do not exist or are not allowed; returns [B, 1, WV]."""
        op = self.op
        ok = op.Gather(self.level_input(names.ROW_OK, level), at, axis=0)
        one = self.constant(np.array(1, np.int8), "ok")
        # (1 − 1) · −NEVER, or (0 − 1) · −NEVER: a third of the time of a choice between many numbers.
        closed = op.DequantizeLinear(ok, self.constant(np.array(-NEVER, np.float32), "never"), one)
        value: ir.Value = op.Reshape(op.Add(log_prob, closed), self.level_input(names.FLAT, level))
        return value

    def open_by_place(self, level: int, log_prob: ir.Value, at: ir.Value) -> ir.Value:
        """Adds NEVER to children [BW, C] by place that do not exist or are not allowed; returns [B, 1, WC]."""
        op, flat = self.op, self.level_input(names.FLAT, level)
        byte = self.cast(op.Gather(self.level_input(names.CHILD_OK, level), at, axis=0), INT32)
        closed = op.Gather(self.constant(closed_by_byte(), "closed_by_byte"), byte, axis=0)
        value: ir.Value = op.Add(op.Reshape(log_prob, flat), op.Reshape(closed, flat))
        return value

    def close(self, level: int, beam: Beam, log_prob: ir.Value) -> ir.Value:
        """Returns `log_prob` [B, 1, WC] with NEVER at the row's closed nodes.

        A closed node has one parent, which the beam holds at most once. A product with the match gives the place of
        the parent's first child, and NEVER is added at the node's place among its children. A node whose parent is not
        in the beam adds 0.
        """
        op = self.op
        node = op.Reshape(beam.node, self.level_input(names.BEAM, level))
        match = self.cast(op.Equal(node, self.level_input(names.CLOSED_PARENT, level)), FLOAT)
        product = op.MatMul(self.level_input(names.PLACE, level), match)
        first, value = op.Split(product, axis=1, num_outputs=2, _outputs=2)
        at = op.Add(self.cast(first, INT), self.level_input(names.CLOSED_SLOT, level))
        closed: ir.Value = op.ScatterElements(log_prob, at, value, axis=2, reduction="add")
        return closed

    def choose(self, level: int, children: Children) -> Choice:
        """Returns the best `keep_l` of all candidates."""
        best, index = self.op.TopK(children.log_prob, self.level_input(names.KEEP, level), axis=2, _outputs=2)
        return Choice(best, index)

    def survivors(self, level: int, beam: Beam | None, children: Children, choice: Choice) -> Beam:
        """Returns the beam that the next level starts from: each survivor adds its token to its parent's state."""
        op, d = self.op, self.config.d_model
        log_prob = op.Reshape(choice.log_prob, self.ints(-1, 1))
        embedding = self.weight(f"level_token.{level}.weight")
        if beam is None:
            token = op.Gather(self.level_input(names.TOKEN, level), choice.index, axis=0)
            added = op.Gather(embedding, token, axis=0)
            state = op.Reshape(op.Add(added, op.Unsqueeze(self.begun, self.ints(1, 2))), self.ints(-1, d))
            return Beam(op.Reshape(choice.index, self.ints(-1)), log_prob, self.advance(1, state))
        chosen = _Chosen(self, level, choice)
        node = self.nodes(level, beam, children, chosen)
        by_token = level_input(names.ROW_OK, level) in self.inputs
        token = chosen.slot if by_token else op.Gather(self.level_input(names.TOKEN, level), node, axis=0)
        state = op.Add(op.Gather(beam.state, chosen.parent, axis=0), op.Gather(embedding, token, axis=0))
        state = self.advance(level + 1, op.Reshape(state, self.ints(-1, d)))
        return Beam(op.Reshape(node, self.ints(-1)), log_prob, state)

    def nodes(self, level: int, beam: Beam, children: Children, chosen: _Chosen) -> ir.Value:
        """Returns the nodes of the chosen [B, 1, W].

        Where there is no child to list it is −1, which reads the last row of every table and is nobody's parent.
        """
        op = self.op
        if children.node is not None:
            node = op.Gather(op.Reshape(children.node, self.ints(-1)), chosen.flat, axis=0)
        else:
            above = op.Gather(beam.node, chosen.parent, axis=0)
            if level_input(names.ROW_OK, level) in self.inputs:
                at = op.Add(op.Mul(above, self.level_input(names.N_SLOTS, level)), chosen.slot)
                node = op.Gather(self.level_input(names.ROW_CHILD, level), at, axis=0)
            else:
                node = op.Add(op.Gather(self.level_input(names.FIRST, level), above, axis=0), chosen.slot)
        value: ir.Value = op.Where(chosen.alive, node, self.ints(-1))
        return value

    def rank(self, beam: Beam | None, children: Children, choice: Choice, q: ir.Value) -> None:
        """Joins the other candidates to the survivors, and outputs the lists, and what the host needs beside them."""
        op = self.op
        item, path = self.survivor_items(beam, children, choice)
        item, path = self.candidates.joined(q, self.begun, self.first, item, path)
        alive = op.Greater(path, self.floats(NEVER / 2))
        dense, added = self.candidates.scores(q, item)
        dense = op.Where(alive, dense, self.floats(NEVER))
        item = op.Where(alive, item, self.ints(-1))
        score, offset = self.fused(path, dense, added)
        self.output_lists(item, op.Where(alive, score, self.floats(NEVER)), path)
        self.output(self.to_float(q), names.QUERY)
        self.output(offset, names.OFFSET)
        self.output(item, names.CANDIDATE_ITEM)
        self.output(path, names.CANDIDATE_PATH)
        self.output(dense, names.CANDIDATE_DENSE)

    def survivor_items(self, beam: Beam | None, children: Children, choice: Choice) -> tuple[ir.Value, ir.Value]:
        """Returns the items of the survivors, −1 where there is none, and the log-probabilities of their paths."""
        op = self.op
        node, path = choice.index, choice.log_prob
        if beam is not None:
            last = self.config.levels - 1
            node = self.nodes(last, beam, children, _Chosen(self, last, choice))
        alive = op.Greater(path, self.floats(NEVER / 2))
        return op.Where(alive, op.Gather(self.inputs[names.LEAF_ITEM], node, axis=0), self.ints(-1)), path

    def fused(self, path: ir.Value, dense: ir.Value, added: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Returns the fused scores [B, 1, C], and the offset [B, 1, 1] of the dense score.

        The dense scores are spread over the candidates so that both parts of the network carry the same mass:
        log softmax(q · e) + log Σ p(path).

        Args:
            path: [B, 1, C] log-probabilities of the paths.
            dense: [B, 1, C] q · e.
            added: [B, 1, C] what the other signals add to the score.
        """
        op = self.op
        # log-sum-exp of both: the difference to the log-softmax of the first candidate, which exists if any does.
        both = op.Concat(path, dense, axis=1)
        sums = op.Sub(both, op.LogSoftmax(both, axis=-1))
        mass, spread = op.Split(op.Gather(sums, self.ints(0), axis=2), axis=1, num_outputs=2, _outputs=2)
        offset = op.Sub(mass, spread)
        weights = op.Unsqueeze(self.inputs[names.WEIGHTS], self.ints(2))
        of_path, of_dense = op.Split(weights, axis=1, num_outputs=2, _outputs=2)
        network = op.Add(op.Mul(of_path, path), op.Mul(of_dense, op.Add(dense, offset)))
        return op.Add(network, added), offset

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Outputs the lists, best score first. Places without an item come last."""
        op, keep = self.op, self.level_input(names.KEEP, self.config.levels - 1)
        score, order = op.TopK(score, keep, axis=2, _outputs=2)
        self.write_lists(op.GatherElements(item, order, axis=2), score, op.GatherElements(log_prob, order, axis=2))

    def write_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Outputs lists [B, 1, W] that are in order."""
        self.output(item, names.ITEM)
        self.output(score, names.SCORE)
        self.output(log_prob, names.LOG_PROB)


def closed_by_byte() -> npt.NDArray[np.float32]:
    """Returns [256, 8] NEVER for every bit of a byte that is not set, the lowest first, else 0."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits == 1, 0.0, NEVER).astype(np.float32)
