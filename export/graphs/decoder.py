"""`decoder.onnx`: the complete constrained decode of a batch of deterministic lists (beam, greedy) in one run.

The K levels are unrolled. Each level scores the children of the nodes it kept, masks what is not allowed, and keeps the
best `keep_l`; after the last one the survivors get a dense score. The catalogue is an input: children in CSR form, what
each node allows, item embeddings. `model/reference/decoder.py` says the same in plain loops.

What a run costs at these sizes is its number of nodes, so everything that does not depend on the request (shapes, row
offsets, child counts) is an input that stays on the device, and beams are rows of matrices: B rows of W beams are BW
rows. `export.graphs.blend_sampler` and `export.graphs.path_sampler` add what sampled lists need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder_network import DecoderNetwork
from export.graphs.dense_candidates import DenseCandidates
from export.graphs.graph_writer import BOOL, FLOAT, INT, INT32, GraphDtype
from model.network.config import NetworkConfig
from service.artifact.graph_interface import NEVER
from service.artifact.trie import levels_by_rows, levels_with_row_tokens


def write_decoder(
    config: NetworkConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    path: Path,
    dtype: GraphDtype,
    *,
    dense: bool = False,
) -> None:
    """Inputs for B rows, K levels, F filters, X_l exclusions, W_l nodes kept at level l (W_−1 = 1); n_l nodes at level
    l (n_0 = 1, n_K = N leaves), C_l most children of one node:

    the request   h [B, d], context [B, slots], gap [B, 2] (log(1 + seconds) / 10 and 1, or zeros), filter [B];
                  closed_slot_0, closed_value_0 [B, 1, X_0]: children of the root to close, and NEVER (0 in padding);
                  closed_parent_l, closed_slot_l [B, 1, X_l], l ≥ 1: nodes to close, by their parent (−2 in padding)
                  and place among its children; node_base_l [BW_{l−1}, 1], l ≥ 1: filter · n_{l+1}
    the shape     keep_l [1] = W_l = min(W, W_{l−1} · C_l); for l ≥ 1: flat_l = [−1, 1, W_{l−1} C_l],
                  beam_l = [−1, W_{l−1}, 1], row_base_l [B, 1, 1] = row · W_{l−1} C_l,
                  place_l [2, W_{l−1}]: the place in the beam, and NEVER
    the catalogue token_l [n_{l+1}], node_ok_0 [F, n_1] and node_ok_l [F · n_{l+1}] bool; for l ≥ 1: first_l and
                  count_l [n_l, 1] of a node's children, slots_l = 0 … C_l − 1, n_slots_l [1] = C_l,
                  last_node_l [1] = n_{l+1} − 1; leaf_item [N], item_table [rows, d], blend [1] weight of q · e
    Levels in `service.artifact.trie.levels_by_rows` have all their V_l tokens for children (C_l = V_l, a child's place is its
    token) and, in the place of node_ok_l, first_l, count_l, slots_l and last_node_l: row_ok_l [F · n_l, V_l],
    row_child_l [n_l, V_l], and node_base_l [BW_{l−1}] = filter · n_l. The others that are in
    `service.artifact.trie.levels_with_row_tokens` have row_token_l [n_l, C_l] int32 as well, the children's tokens by place.
    With `dense`, D items by q · e join the beam's (`export.graphs.dense_candidates`), X exclusions:
    the request   excluded_item [B, X] and excluded_value [B, X]: items to leave out, and NEVER (0 and 0 in padding)
    the shape     keep_dense [1] = D, dense_shape = [−1, 1, D], join [1]: 0, or NEVER where they stay away
    the catalogue item_ok [F, rows] bool, item_path [rows, K] tokens of each item
    Outputs: item [B, 1, W] catalogue indices best first, −1 where the catalogue has no more; score [B, 1, W] blended
    log-probability; log_prob [B, 1, W] of the path; query [B, d] float32; offset [B, 1, 1]: log Σ p(path) − log Σ
    exp(q · e) over the survivors, so that q · e + offset of an item outside the trie is comparable with scores.
    """
    DecoderGraph(config, weights, dtype, dense=dense).write(path)


@dataclass(frozen=True)
class Beam:
    """What is kept between levels: node [BW], log-probability [BW, 1] (NEVER where there is no node), and the decoder
    state [BW, d]."""

    node: ir.Value
    log_prob: ir.Value
    state: ir.Value


@dataclass(frozen=True)
class Children:
    """Candidates of a level: `node` [BW, C], log-probability of the token [BW, C] and of the path [B, 1, WC], the
    latter NEVER where there is no such child, or it may not be listed."""

    node: ir.Value | None  # None at the root: a child's node is its place
    token_log_prob: ir.Value
    log_prob: ir.Value


@dataclass(frozen=True)
class Choice:
    """Survivors of a level, best first: path log-probability and place among the candidates, [B, 1, W] each."""

    log_prob: ir.Value
    index: ir.Value


class DecoderGraph(DecoderNetwork):
    name = "gpt4rec_decoder"
    by_rows = True
    first: ir.Value  # log-probabilities [B, V_0] of the first token

    def __init__(
        self,
        config: NetworkConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        dtype: GraphDtype,
        *,
        dense: bool = False,
    ) -> None:
        super().__init__(self.name, config, weights, dtype)
        c = config
        self.rows = levels_by_rows(c.code_sizes) if self.by_rows else frozenset()
        self.row_tokens = levels_with_row_tokens(c.code_sizes)
        self.levels = [self.level_inputs(level) for level in range(c.levels)]
        self.blend = self.input("blend", FLOAT, [1])
        self.leaf_item = self.input("leaf_item", INT, ["items"])
        self.table = self.input("item_table", self.compute, ["rows", c.d_model])
        self.dense = DenseCandidates(self) if dense else None

    def level_inputs(self, level: int) -> dict[str, ir.Value]:
        below = "items" if level == self.config.levels - 1 else f"nodes_{level + 1}"
        shapes: dict[str, tuple[ir.DataType, list[int | str]]] = {
            "keep": (INT, [1]),
            "token": (INT, [below]),
            "closed_slot": (INT, ["batch", 1, f"closed_{level}"]),
        }
        if level == 0:
            shapes["node_ok"] = (BOOL, ["filters", below])
            shapes["closed_value"] = (FLOAT, ["batch", 1, "closed_0"])
        else:
            shapes |= {
                "closed_parent": (INT, ["batch", 1, f"closed_{level}"]),
                "flat": (INT, [3]),
                "beam": (INT, [3]),
                "row_base": (INT, ["batch", 1, 1]),
                "place": (FLOAT, [2, f"width_{level}"]),
                "n_slots": (INT, [1]),
            }
        if level in self.rows:
            size = self.config.code_sizes[level]
            shapes |= {
                "node_base": (INT, [f"beams_{level}"]),
                "row_ok": (BOOL, [f"row_oks_{level}", size]),
                "row_child": (INT, [f"nodes_{level}", size]),
            }
        elif level > 0:
            shapes |= {
                "node_ok": (BOOL, [f"node_oks_{level}"]),
                "node_base": (INT, [f"beams_{level}", 1]),
                "first": (INT, [f"nodes_{level}", 1]),
                "count": (INT, [f"nodes_{level}", 1]),
                "slots": (INT, [f"slots_{level}"]),
                "last_node": (INT, [1]),
            }
            if level in self.row_tokens:
                shapes["row_token"] = (INT32, [f"nodes_{level}", f"slots_{level}"])
        return {name: self.input(f"{name}_{level}", dtype, shape) for name, (dtype, shape) in shapes.items()}

    def write(self, path: Path) -> None:
        q = self.query()
        children = self.root_children(q)
        choice = self.choose(0, children)
        beam = None
        for level in range(1, self.config.levels):
            beam = self.survivors(level - 1, beam, children, choice)
            children = self.children(level, beam)
            choice = self.choose(level, children)
        self.rank(children, choice, q)
        self.save(path)

    def root_children(self, q: ir.Value) -> Children:
        """The root's children are all nodes of level 1 in order: a child's place is its node."""
        op, level = self.op, self.levels[0]
        self.begun = self.advance(0, q)
        self.first = self.token_log_probs(0, self.begun)
        token_log_prob = op.Gather(self.first, level["token"], axis=1)
        ok = op.Gather(level["node_ok"], self.filter, axis=0)
        log_prob = op.Unsqueeze(op.Where(ok, token_log_prob, self.floats(NEVER)), self.ints(1))
        log_prob = op.ScatterElements(log_prob, level["closed_slot"], level["closed_value"], axis=2, reduction="add")
        return Children(None, token_log_prob, log_prob)

    def children(self, level_number: int, beam: Beam) -> Children:
        """All children of the kept nodes, of which there are up to C each."""
        op, level = self.op, self.levels[level_number]
        if level_number in self.rows:
            ok = op.Gather(level["row_ok"], op.Add(beam.node, level["node_base"]), axis=0)
            child = op.Gather(level["row_child"], beam.node, axis=0)
            token_log_prob = self.token_log_probs(level_number, beam.state)
            return self._children(level_number, beam, child, ok, token_log_prob)
        exists = op.Less(level["slots"], op.Gather(level["count"], beam.node, axis=0))
        child = op.Add(op.Gather(level["first"], beam.node, axis=0), level["slots"])
        child = op.Min(child, level["last_node"])
        ok = op.And(exists, op.Gather(level["node_ok"], op.Add(child, level["node_base"]), axis=0))
        if level_number in self.row_tokens:
            token = op.Gather(level["row_token"], beam.node, axis=0)
        else:
            token = op.Gather(level["token"], child, axis=0)
        token_log_prob = op.GatherElements(self.token_log_probs(level_number, beam.state), token, axis=1)
        return self._children(level_number, beam, child, ok, token_log_prob)

    def _children(
        self, level_number: int, beam: Beam, child: ir.Value, ok: ir.Value, token_log_prob: ir.Value
    ) -> Children:
        op, level = self.op, self.levels[level_number]
        log_prob = op.Where(ok, op.Add(token_log_prob, beam.log_prob), self.floats(NEVER))
        log_prob = self.close(level_number, beam, op.Reshape(log_prob, level["flat"]))
        return Children(child, token_log_prob, log_prob)

    def close(self, level_number: int, beam: Beam, log_prob: ir.Value) -> ir.Value:
        """`log_prob` [B, 1, WC], NEVER at the row's closed nodes.

        A closed node has one parent, which is kept at most once: find its place in the beam by a product with the
        match, and add NEVER where the node stands among its children. What has no parent in the beam adds 0.
        """
        op, level = self.op, self.levels[level_number]
        alive = op.Greater(beam.log_prob, self.floats(NEVER / 2))
        kept = op.Where(alive, op.Reshape(beam.node, self.ints(-1, 1)), self.ints(-1))
        match = self.cast(op.Equal(op.Reshape(kept, level["beam"]), level["closed_parent"]), FLOAT)
        place, value = op.Split(op.MatMul(level["place"], match), axis=1, num_outputs=2, _outputs=2)
        at = op.Add(op.Mul(self.cast(place, INT), level["n_slots"]), level["closed_slot"])
        closed: ir.Value = op.ScatterElements(log_prob, at, value, axis=2, reduction="add")
        return closed

    def choose(self, level: int, children: Children) -> Choice:
        """The best `keep_level` of all candidates."""
        best, index = self.op.TopK(children.log_prob, self.levels[level]["keep"], axis=2, _outputs=2)
        return Choice(best, index)

    def survivors(self, level: int, beam: Beam | None, children: Children, choice: Choice) -> Beam:
        """What the next level starts from; each survivor takes its parent's state and its own token."""
        op, inputs, d = self.op, self.levels[level], self.config.d_model
        log_prob = op.Reshape(choice.log_prob, self.ints(-1, 1))
        embedding = self.weight(f"level_token.{level}.weight")
        if beam is None:
            added = op.Gather(embedding, op.Gather(inputs["token"], choice.index, axis=0), axis=0)
            state = op.Reshape(op.Add(added, op.Unsqueeze(self.begun, self.ints(1, 2))), self.ints(-1, d))
            return Beam(op.Reshape(choice.index, self.ints(-1)), log_prob, self.advance(1, state))
        flat = op.Reshape(op.Add(choice.index, inputs["row_base"]), self.ints(-1))
        node = op.Gather(op.Reshape(children.node, self.ints(-1)), flat, axis=0)
        parent = op.Gather(beam.state, op.Div(flat, inputs["n_slots"]), axis=0)
        state = op.Add(parent, op.Gather(embedding, op.Gather(inputs["token"], node, axis=0), axis=0))
        return Beam(node, log_prob, self.advance(level + 1, state))

    def rank(self, children: Children, choice: Choice, q: ir.Value) -> None:
        """Rescore the survivors, and the dense candidates among them, with q · e_item and order them.

        The dense scores are spread over the survivors so that both parts of the blend carry the same mass:
        log softmax(q · e) + log Σ p(path).
        """
        op = self.op
        node, path = choice.index, choice.log_prob
        if children.node is not None:
            flat = op.Add(node, self.levels[-1]["row_base"])
            node = op.Gather(op.Reshape(children.node, self.ints(-1)), flat, axis=0)
        alive = op.Greater(path, self.floats(NEVER / 2))
        item = op.Gather(self.leaf_item, node, axis=0)
        if self.dense is not None:
            beam = op.Where(alive, item, self.ints(-1))
            item, path = self.dense.joined(q, self.begun, self.first, beam, path, NEVER)
            alive = op.Greater(path, self.floats(NEVER / 2))
        query = self.to_float(q)
        dense = op.MatMul(self.to_float(op.Gather(self.table, item, axis=0)), op.Unsqueeze(query, self.ints(1, 3)))
        dense = op.Where(alive, op.Squeeze(dense, self.ints(3)), self.floats(NEVER))
        self.blend_and_list(op.Where(alive, item, self.ints(-1)), path, dense, query)

    def blend_and_list(self, item: ir.Value, path: ir.Value, dense: ir.Value, query: ir.Value) -> None:
        """The lists by the blend of both scores [B, 1, W], and what an item outside of them is scored with."""
        op = self.op
        # log-sum-exp of both, as the difference to the log-softmax of the first survivor, which is there if any is.
        both = op.Concat(path, dense, axis=1)
        sums = op.Sub(both, op.LogSoftmax(both, axis=-1))
        mass, spread = op.Split(
            op.Slice(sums, self.ints(0), self.ints(1), self.ints(2)), axis=1, num_outputs=2, _outputs=2
        )
        offset = op.Sub(mass, spread)
        blended = op.Add(path, op.Mul(self.blend, op.Sub(op.Add(dense, offset), path)))
        self.output_lists(item, blended, path)
        self.output(query, "query", FLOAT, ["batch", self.config.d_model])
        self.output(offset, "offset", FLOAT, ["batch", 1, 1])

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Best blended score first. Without a node a score is below all others."""
        op = self.op
        score, order = op.TopK(score, self.levels[-1]["keep"], axis=2, _outputs=2)
        self.write_lists(op.GatherElements(item, order, axis=2), score, op.GatherElements(log_prob, order, axis=2))

    def write_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        self.output(item, "item", INT, ["batch", 1, "kept"])
        self.output(score, "score", FLOAT, ["batch", 1, "kept"])
        self.output(log_prob, "log_prob", FLOAT, ["batch", 1, "kept"])
