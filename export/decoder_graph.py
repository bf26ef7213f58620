"""`decoder.onnx`: the complete constrained decode of a batch, all four strategies, in one run.

The K levels are unrolled. Each level scores the children of the nodes it kept, masks what is not allowed, and keeps
the best `keep_l`; after the last one the survivors get a dense score. The catalogue is an input: children in CSR form,
what each node allows, item embeddings. `model/reference.py` says the same in plain loops.

Deterministic rows are ranked by log-probability. Sampled rows draw without replacement by stochastic beam search (Kool,
van Hoof and Welling, 2019): perturbed scores G whose maximum over the children equals the parent's G.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graph import FLOAT, INT, UINT8, GraphDtype, GraphWriter
from export.noise import PRIME, ROUND_KEYS
from model.network import NetworkConfig

NEVER = -1e30  # score of what must not be chosen; finite, so that no NaN can come of it

# A node outside the nucleus comes after every node inside: its score, below NOISE_CEILING as no Gumbel noise exceeds
# it, becomes a huge negative one. A product keeps float32's digits, where a large difference would round them away.
NOISE_CEILING = 32.0
OUTSIDE = 1e6


def write_decoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Inputs for B rows, K levels, F filters, X exclusions; n_l nodes at level l (n_K = N items), C_l most children:

    the request   h [B, d], context [B, slots], gap_ms [B], inverse_temperature [B], top_p [B], sampled [B] (0 or 1),
                  seed [B] (hashed), filter [B], excluded [B, K, X] node ids per level, −1 padded
    the width     keep_l [1] nodes to keep at level l: min(W, keep_{l−1} · (C_l + 1)); blend [1] weight of q · e
    the catalogue first_child_l [n_l + 1], token_l, parent_l, node_hash_l [n_{l+1}], slots_l = 0 … C_l,
                  node_ok_l [F, n_{l+1}] uint8, n_nodes_l [1], leaf_item [N], item_table [N + 2, d]
    Outputs: item [B, W] catalogue indices best first, −1 where the catalogue has no more; score [B, W] blended
    log-probability; log_prob [B, W] of the path.
    """
    DecoderGraph(config, weights, dtype).write(path)


@dataclass(frozen=True)
class Beam:
    """What is kept between levels, [B, W] each: node, liveness, log-probability, log-probability of the sampling
    distribution, perturbed score, 1 outside the nucleus; and the decoder state [B, W, d]."""

    node: ir.Value
    alive: ir.Value
    log_prob: ir.Value
    phi: ir.Value
    perturbed: ir.Value
    outside: ir.Value
    key: ir.Value
    state: ir.Value


class DecoderGraph(GraphWriter):
    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        super().__init__("gpt4rec_decoder", weights, dtype)
        c = self.config = config
        self.h = self.input("h", FLOAT, ["batch", c.d_model])
        self.context = self.input("context", INT, ["batch", c.n_slots])
        self.gap_ms = self.input("gap_ms", INT, ["batch"])
        self.inverse_temperature = self.input("inverse_temperature", FLOAT, ["batch"])
        self.top_p = self.input("top_p", FLOAT, ["batch"])
        self.sampled = self.input("sampled", FLOAT, ["batch"])
        self.seed = self.input("seed", INT, ["batch"])
        self.filter = self.input("filter", INT, ["batch"])
        self.excluded = self.input("excluded", INT, ["batch", c.levels, "excluded"])
        self.keep = [self.input(f"keep_{level}", INT, [1]) for level in range(c.levels)]
        self.blend = self.input("blend", FLOAT, [1])
        self.trie = [self.trie_inputs(level) for level in range(c.levels)]
        self.leaf_item = self.input("leaf_item", INT, ["items"])
        self.table = self.input("item_table", self.compute, ["rows", c.d_model])

    def trie_inputs(self, level: int) -> dict[str, ir.Value]:
        below = "items" if level == self.config.levels - 1 else f"nodes_{level + 1}"
        return {
            "first_child": self.input(f"first_child_{level}", INT, [f"bounds_{level}"]),
            "token": self.input(f"token_{level}", INT, [below]),
            "parent": self.input(f"parent_{level}", INT, [below]),
            "hash": self.input(f"node_hash_{level}", INT, [below]),
            "slots": self.input(f"slots_{level}", INT, [f"slots_{level}"]),
            "ok": self.input(f"node_ok_{level}", UINT8, ["filters", below]),
            "n_nodes": self.input(f"n_nodes_{level}", INT, [1]),
        }

    def write(self, path: Path) -> None:
        op = self.op
        q = self.query()
        zero = op.Unsqueeze(op.Mul(self.gap_ms, self.ints(0)), self.ints(1))
        zero_float = self.cast(zero, FLOAT)
        beam = Beam(
            node=zero,
            alive=op.Equal(zero, self.ints(0)),
            log_prob=zero_float,
            phi=zero_float,
            perturbed=zero_float,
            outside=zero_float,
            key=zero_float,
            state=op.Unsqueeze(q, self.ints(1)),
        )
        for level in range(self.config.levels):
            beam = self.level(level, beam)
        self.rank(beam, q)
        self.save(path)

    def query(self) -> ir.Value:
        """q [B, d] = γ(context, gap) ⊙ norm(h) + β(context, gap)."""
        op, c = self.op, self.config
        rows = op.Add(
            op.Gather(self.weight32("context.table.weight"), self.context, axis=0),
            self.weight32("context.slot"),
        )
        known = self.cast(op.Greater(self.context, self.ints(0)), FLOAT)
        mixed = op.ReduceSum(op.Mul(rows, op.Unsqueeze(known, self.ints(2))), self.ints(1), keepdims=0)
        log_gap = op.Unsqueeze(op.Mul(self.log_seconds(self.gap_ms), self.floats(0.1)), self.ints(1))
        gap = op.Add(
            op.Mul(log_gap, self.constant(self._weights["context.gap.weight"].T.astype(np.float32), "gap_row")),
            self.weight32("context.gap_known"),
        )
        gap_known = self.cast(op.GreaterOrEqual(self.gap_ms, self.ints(0)), FLOAT)
        mixed = op.Add(mixed, op.Mul(gap, op.Unsqueeze(gap_known, self.ints(1))))
        modulation = self.linear(self.to_compute(self.silu(mixed)), "context.modulate")
        gamma = op.Slice(modulation, self.ints(0), self.ints(c.d_model), self.ints(1))
        beta = op.Slice(modulation, self.ints(c.d_model), self.ints(2 * c.d_model), self.ints(1))
        one = self.constant(np.ones(1, np.float32 if self.compute == FLOAT else np.float16), "one")
        normed = self.norm(self.to_compute(self.h), "context.norm")
        value: ir.Value = op.Add(op.Mul(normed, op.Add(gamma, one)), beta)
        return value

    def level(self, level: int, beam: Beam) -> Beam:
        """Expand every kept node by its children and keep the best `keep_level` of them all."""
        op, trie = self.op, self.trie[level]
        first = op.Unsqueeze(op.Gather(trie["first_child"], beam.node, axis=0), self.ints(2))
        end = op.Gather(trie["first_child"], op.Add(beam.node, self.ints(1)), axis=0)
        child = op.Add(first, trie["slots"])
        exists = op.Less(child, op.Unsqueeze(end, self.ints(2)))
        child = op.Where(exists, child, self.ints(0))
        ok = op.And(op.And(exists, self.allowed(level, child)), op.Unsqueeze(beam.alive, self.ints(2)))
        ok = op.And(ok, self.not_excluded(level, beam))
        token = op.Gather(trie["token"], child, axis=0)
        logits = self.logits(level, beam.state)
        token_log_prob = op.GatherElements(op.LogSoftmax(logits, axis=-1), token, axis=2)
        log_prob = op.Add(op.Unsqueeze(beam.log_prob, self.ints(2)), token_log_prob)
        phi, perturbed, outside = self.perturb(level, beam, child, token_log_prob, ok)
        last = op.Mul(op.Sub(perturbed, self.floats(NOISE_CEILING)), self.floats(OUTSIDE))
        sampling_key = op.Where(op.Greater(outside, self.floats(0.5)), last, perturbed)
        key = self.by_strategy(sampling_key, log_prob)
        key = op.Where(ok, key, self.floats(NEVER))
        best, index = op.TopK(self.flat(key), self.keep[level], axis=1, _outputs=2)

        def take(x: ir.Value) -> ir.Value:
            value: ir.Value = op.GatherElements(self.flat(x), index, axis=1)
            return value

        slots = op.Add(op.ReduceMax(trie["slots"], keepdims=1), self.ints(1))
        state = self.regather(beam.state, op.Div(index, slots))
        if level + 1 < self.config.levels:
            state = self.advance(level, state, take(token))
        return Beam(
            node=take(child),
            alive=op.Greater(best, self.floats(NEVER / 2)),
            log_prob=take(log_prob),
            phi=take(phi),
            perturbed=take(perturbed),
            outside=take(outside),
            key=best,
            state=state,
        )

    def flat(self, x: ir.Value) -> ir.Value:
        """[B, W, C] → [B, W · C]."""
        value: ir.Value = self.op.Reshape(x, self.ints(0, -1))
        return value

    def by_strategy(self, when_sampled: ir.Value, otherwise: ir.Value) -> ir.Value:
        """Choose per row; both are [B, W, C]."""
        is_sampled = self.op.Unsqueeze(self.op.Greater(self.sampled, self.floats(0.5)), self.ints(1, 2))
        value: ir.Value = self.op.Where(is_sampled, when_sampled, otherwise)
        return value

    def allowed(self, level: int, child: ir.Value) -> ir.Value:
        """Whether a child has an allowed item under it, by the row's filter."""
        op, trie = self.op, self.trie[level]
        offset = op.Unsqueeze(op.Mul(self.filter, trie["n_nodes"]), self.ints(1, 2))
        flat = op.Reshape(trie["ok"], self.ints(-1))
        byte = op.Gather(flat, op.Add(child, offset), axis=0)
        value: ir.Value = op.Greater(self.cast(byte, FLOAT), self.floats(0.5))
        return value

    def not_excluded(self, level: int, beam: Beam) -> ir.Value:
        """[B, W, C] false at the row's excluded nodes.

        An excluded node has one parent, which is kept at most once: find the slot it would take there and scatter a
        zero, instead of comparing every child with every exclusion. What has no parent in the beam goes to
        the spare slot C of the first beam, which no child ever takes.
        """
        op, trie = self.op, self.trie[level]
        here = op.Squeeze(op.Slice(self.excluded, self.ints(level), self.ints(level + 1), self.ints(1)), self.ints(1))
        node = op.Max(here, self.ints(0))
        parent = op.Gather(trie["parent"], node, axis=0)
        slot = op.Sub(node, op.Gather(trie["first_child"], parent, axis=0))
        kept = op.Unsqueeze(op.Where(beam.alive, beam.node, self.ints(-1)), self.ints(2))
        match = op.And(
            op.Equal(kept, op.Unsqueeze(parent, self.ints(1))),
            op.Unsqueeze(op.GreaterOrEqual(here, self.ints(0)), self.ints(1)),
        )
        position = op.CumSum(op.Add(op.Mul(beam.node, self.ints(0)), self.ints(1)), self.scalar(1))
        place = op.ReduceMax(
            op.Mul(self.cast(match, INT), op.Unsqueeze(position, self.ints(2))), self.ints(1), keepdims=0
        )
        spare = op.ReduceMax(trie["slots"], keepdims=1)
        slots = op.Add(spare, self.ints(1))
        at = op.Add(op.Mul(op.Sub(place, self.ints(1)), slots), slot)
        at = op.Where(op.Greater(place, self.ints(0)), at, spare)
        ones = op.Add(
            op.Mul(op.Unsqueeze(beam.log_prob, self.ints(2)), self.floats(0.0)),
            op.Add(op.Mul(self.cast(trie["slots"], FLOAT), self.floats(0.0)), self.floats(1.0)),
        )
        zeros = op.Mul(self.cast(at, FLOAT), self.floats(0.0))
        flat = op.ScatterElements(self.flat(ones), at, zeros, axis=1)
        value: ir.Value = op.Greater(op.Reshape(flat, op.Shape(ones)), self.floats(0.5))
        return value

    def logits(self, level: int, state: ir.Value) -> ir.Value:
        normed = self.norm(state, f"level_norm.{level}")
        return self.to_float(self.op.MatMul(normed, self.matrix(f"token.{level}.weight")))

    def advance(self, level: int, state: ir.Value, token: ir.Value) -> ir.Value:
        """Decoder state after a token: s ← s + e; s + down(silu(up(norm(s))))."""
        op, name = self.op, f"advance.{level}"
        s = op.Add(state, op.Gather(self.weight(f"token.{level}.weight"), token, axis=0))
        hidden = self.silu(self.linear(self.norm(s, f"{name}.norm"), f"{name}.up"))
        value: ir.Value = op.Add(s, self.linear(hidden, f"{name}.down"))
        return value

    def regather(self, state: ir.Value, beam_index: ir.Value) -> ir.Value:
        """Each survivor takes its parent's state."""
        zeros = self.constant(np.zeros(self.config.d_model, np.int64), "zeros_d_model")
        index = self.op.Add(self.op.Unsqueeze(beam_index, self.ints(2)), zeros)
        value: ir.Value = self.op.GatherElements(state, index, axis=1)
        return value

    def perturb(
        self, level: int, beam: Beam, child: ir.Value, token_log_prob: ir.Value, ok: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Sampling log-probability, perturbed score and nucleus flag of every child.

        Inside the nucleus G is conditioned on its maximum being the parent's G; outside it is plain, since those
        nodes come after all others anyhow.
        """
        op = self.op
        tempered = op.Mul(token_log_prob, op.Unsqueeze(self.inverse_temperature, self.ints(1, 2)))
        over_all = op.LogSoftmax(op.Where(ok, tempered, self.floats(NEVER)), axis=-1)
        inside = op.And(ok, self.nucleus(over_all))
        over_nucleus = op.LogSoftmax(op.Where(inside, tempered, self.floats(NEVER)), axis=-1)
        phi = op.Add(op.Unsqueeze(beam.phi, self.ints(2)), op.Where(inside, over_nucleus, over_all))
        phi = op.Max(phi, self.floats(NEVER))
        noisy = op.Add(phi, self.gumbel(level, child))
        contenders = op.Where(inside, noisy, self.floats(NEVER))
        top = op.ReduceMax(contenders, self.ints(2), keepdims=1)
        parent = op.Unsqueeze(beam.perturbed, self.ints(2))
        # G̃ = −log(exp(−G) − exp(−Z) + exp(−g)), in the stable form of the paper's appendix.
        below_top = op.Min(op.Sub(contenders, top), self.floats(0.0))
        v = op.Add(op.Sub(parent, contenders), self.log(op.Sub(self.floats(1.0), op.Exp(below_top))))
        conditioned = op.Sub(
            op.Sub(parent, op.Max(v, self.floats(0.0))),
            op.Log(op.Add(self.floats(1.0), op.Exp(op.Neg(op.Abs(v))))),
        )
        perturbed = op.Where(inside, conditioned, noisy)
        newly = op.Sub(self.floats(1.0), self.cast(inside, FLOAT))
        outside = op.Max(op.Unsqueeze(beam.outside, self.ints(2)), newly)
        return phi, perturbed, outside

    def log(self, x: ir.Value) -> ir.Value:
        """log x, with log 0 a large negative number instead of −∞."""
        value: ir.Value = self.op.Log(self.op.Max(x, self.floats(1e-30)))
        return value

    def nucleus(self, log_prob: ir.Value) -> ir.Value:
        """Children in the smallest set whose mass reaches top-p (Holtzman et al., 2020), ties with its last
        member included, so that the set does not depend on an order."""
        op = self.op
        size = op.Shape(log_prob, start=2, end=3)
        descending, _ = op.TopK(log_prob, size, axis=2, _outputs=2)
        before = op.CumSum(op.Exp(descending), self.scalar(2), exclusive=1)
        within = op.Less(before, op.Unsqueeze(self.top_p, self.ints(1, 2)))
        least = op.ReduceMin(op.Where(within, descending, self.floats(-NEVER)), self.ints(2), keepdims=1)
        value: ir.Value = op.GreaterOrEqual(log_prob, least)
        return value

    def gumbel(self, level: int, child: ir.Value) -> ir.Value:
        """−log(−log u), u a hash of (seed, level, node): it depends on neither slot nor batch."""
        op = self.op
        x = op.Add(op.Gather(self.trie[level]["hash"], child, axis=0), op.Unsqueeze(self.seed, self.ints(1, 2)))
        x = self.fifth_power(op.Mod(x, self.ints(PRIME)))
        x = self.fifth_power(op.Mod(op.Add(x, self.ints(ROUND_KEYS[1])), self.ints(PRIME)))
        # 24 bits survive the cast to float32: drop the lower ones first, so that u never rounds to 1.
        x = op.Div(x, self.ints(2**8))
        u = op.Div(op.Add(self.cast(x, FLOAT), self.floats(0.5)), self.floats(float(2**23)))
        value: ir.Value = op.Neg(op.Log(op.Neg(op.Log(u))))
        return value

    def fifth_power(self, x: ir.Value) -> ir.Value:
        op, prime = self.op, self.ints(PRIME)
        square = op.Mod(op.Mul(x, x), prime)
        fourth = op.Mod(op.Mul(square, square), prime)
        value: ir.Value = op.Mod(op.Mul(fourth, x), prime)
        return value

    def rank(self, beam: Beam, q: ir.Value) -> None:
        """Rescore the survivors with q · e_item and order them; sampled rows keep the order they were drawn in.

        The dense scores are spread over the survivors so that both parts of the blend carry the same mass:
        log softmax(q · e) + log Σ p(path).
        """
        op = self.op
        item = op.Gather(self.leaf_item, beam.node, axis=0)
        vectors = op.Gather(self.table, item, axis=0)
        product = op.Mul(vectors, op.Unsqueeze(q, self.ints(1)))
        dense = op.ReduceSum(self.to_float(product), self.ints(2), keepdims=0)
        dense = op.Mul(dense, self.floats(self.config.d_model**-0.5))
        dense = op.LogSoftmax(op.Where(beam.alive, dense, self.floats(NEVER)), axis=-1)
        path = op.Where(beam.alive, beam.log_prob, self.floats(NEVER))
        largest = op.ReduceMax(path, self.ints(1), keepdims=1)
        mass = op.Add(largest, op.Log(op.ReduceSum(op.Exp(op.Sub(path, largest)), self.ints(1), keepdims=1)))
        rest = op.Sub(self.floats(1.0), self.blend)
        blended = op.Add(op.Mul(op.Add(dense, mass), self.blend), op.Mul(path, rest))
        is_sampled = op.Unsqueeze(op.Greater(self.sampled, self.floats(0.5)), self.ints(1))
        key = op.Where(beam.alive, op.Where(is_sampled, beam.key, blended), self.floats(NEVER))
        _, order = op.TopK(key, self.keep[-1], axis=1, _outputs=2)
        item = op.Where(beam.alive, item, self.ints(-1))
        for value, name, dtype in (
            (item, "item", INT),
            (blended, "score", FLOAT),
            (beam.log_prob, "log_prob", FLOAT),
        ):
            self.output(op.GatherElements(value, order, axis=1), name, dtype, ["batch", "width"])
