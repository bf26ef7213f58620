"""The names of the inputs and outputs of the artefact's ONNX graphs, and what each of them holds.

`export.graphs` writes the graphs, `service.engine` feeds and reads them; both use these names. Types and shapes as
they stand in the files are in `service.artifact.graphs.encoder_interface` and `decoder_interface`. The sizes in the
comments:

    B rows of a batch · T events of a history · L layers · w window of the encoder state · S = w + T slots
    K levels of the trie, l = 0 … K − 1 · n_l nodes at level l (n_0 = 1, n_K = N leaves) · C_l most children of a node
    W width of the beam · W_l nodes kept after level l (W_−1 = 1) · D candidates that join · F filters in use
    X_l exclusions at level l, as many as the row with the most has · d model dimension · V_l tokens of level l
    G n-grams of a query (`service.artifact.query_text`)
    A attributes of an item (`service.artifact.items.item_attributes`)
    M items with signals, as many as the row with the most has, or a bucket · G groups of users with own weights

An input that exists once for each level (`level_input`) is marked with _l. "By rows" means the levels that
`service.artifact.graphs.level_tables.levels_by_rows` names.
"""

from __future__ import annotations

# Score of a candidate that must not be chosen; finite, so that no NaN can come of it.
NEVER = -1e30

# -- the events of a history, right-padded

ITEM = "item"  # [B, T] rows of the item table; as an output of the decoders: the lists (see below)
TYPE = "type"  # [B, T] event types
TIME_MS = "time_ms"  # [B, T] times of the events
PREVIOUS_MS = "previous_ms"  # [B, T] time of the event before each event
QUERY = "query"  # [B, T, G] n-grams of the events' queries, 0 where there are none (networks that read queries)
SESSION = "session"  # [B, T] numbers of the events' sessions, 0 where unknown (networks that read sessions)
ITEM_ATTRIBUTES = "item_attributes"  # [rows, A] attributes beside each row of the item table, 0 where there are none
LAST_ROW = "last_row"  # [B] row of [B · T] with each history's last event: row · T + n − 1

# -- encoders with a state that are exported from their `step`: each array of the layout [B, …] is an input,
#    `past_input(name)`, and an output, `next_output(name)`; without an event the state is zeros

N_VALID = "n_valid"  # [B] events in the window of the state; 0: there is no event before
N_NEW = "n_new"  # [B] new events of each row, at least 1

# -- the state of GPT4Rec's own backbone, its past right-aligned: slots w − n_valid … w − 1 hold events, the new ones
#    follow from w on

KV = "kv"  # [B, L, 2, w, d_head] keys and values, in the state's type
SCALE = "scale"  # [B, L, 2, w] scale of each key and value (int8 states only)
PAST_TIME_MS = "past_time_ms"  # [B, w] times of the past events
FIRST_SLOT = "first_slot"  # [B, 1, 1] first slot that holds an event: w − n_valid
KEPT_SLOT = "kept_slot"  # [B, w] slots of the next window: n_new + 0 … w − 1
KEPT_ROW = "kept_row"  # [B, L, 2, w] rows of [B · L · 2 · S] that the next window keeps
NEXT_KV = "next_kv"  # output, like KV; the next window holds min(w, n_valid + n_new) events
NEXT_SCALE = "next_scale"  # output, like SCALE
NEXT_TIME_MS = "next_time_ms"  # output, like PAST_TIME_MS

# -- what attention needs to know of the shape; the explainer has no past, so its S is T

NEAR = "near"  # [1, T, S] the slots in the window of each new event
SLOT = "slot"  # [1, 1, S] = 0 … S − 1
SCORES = "scores"  # [4] = −1, heads, T, S
FOLDED = "folded"  # [3] = −1, heads · T, S

# -- encoders without a state: each has those of these that its architecture reads

POSITION = "position"  # [T] = 0 … T − 1
VALID = "valid"  # [B, 1, T] positions that are not padding
ASKED = "asked"  # [B, T, 1] the hidden event behind the history (encoders trained on the task "masked")

# -- the explainer

LAST = "last"  # [B, 1, T] 1 at the last event, else 0
WEIGHT = "weight"  # output [B, T]: attention carried by each event; rows add up to 1 and are 0 in the padding

AMOUNT = "amount"  # [B, T] how much of each event there is: 1, or a little more or less (all but GPT4Rec's own)

# -- outputs of the explainer of encoders with a memory: what the last event read from it

READ_EVENTS = "read_events"  # [B, T] share of each event; the rest up to 1 is what the memory held before the events
READ_SLOTS = "read_slots"  # [B, m] share of each slot (memory bank)
READ_SESSIONS = "read_sessions"  # [B, T] number of each event's session, from 0 (hierarchy)
READ_HORIZONS = "read_horizons"  # [B, 3] weight of each horizon, the shortest first (hierarchy)

# -- the hidden state: output [B, d] of every encoder and of the explainer, input of every decoder

HIDDEN = "h"  # after the last event

# -- the request, as the decoder and the sampler read it; encoders that read the user's features have CONTEXT as well

CONTEXT = "context"  # [B, n_slots] rows of the context table
GAP = "gap"  # [B, 2] log(1 + seconds since the last event) / 10 and 1, or two zeros where the gap is unknown
FILTER = "filter"  # [B] index of each row's filter among the F
CLOSED_SLOT = "closed_slot"  # _l [B, 1, X_l] nodes to close: their place among their parent's children
CLOSED_VALUE = "closed_value"  # _0 [B, 1, X_0] NEVER for each closed child of the root, 0 in the padding
CLOSED_PARENT = "closed_parent"  # _l, l ≥ 1: [B, 1, X_l] parents of the nodes to close, −2 in the padding
NODE_BASE = "node_base"  # _l, l ≥ 1: [B · W_{l−1}] filter · n_l
WEIGHTS = "weights"  # [B, 2] weights of the path's log-probability and of q · e
GROUP = "group"  # whole catalogue: [B] row of ITEM_BIAS; signals alone: [B, 1] group · rows
SIGNAL_ITEM = "signal_item"  # [B, M] items that the row's filter allows and that are not excluded, 0 in the padding
SIGNAL_VALUE = "signal_value"  # [B, M] what the user's signals add to the score of each of them, 0 in the padding

# -- the shape of the search: follows from the width and the batch. C_l here is a multiple of 8 in levels with CHILD_OK,
#    and V_l by rows

KEEP = "keep"  # _l [1] W_l = min(W, W_{l−1} · C_l)
FLAT = "flat"  # _l, l ≥ 1: [3] = −1, 1, W_{l−1} · C_l
BEAM = "beam"  # _l, l ≥ 1: [3] = −1, W_{l−1}, 1
ROW_BASE = "row_base"  # _l, l ≥ 1: [B, 1, 1] row · W_{l−1} · C_l
PLACE = "place"  # _l, l ≥ 1: [2, W_{l−1}] the place of the first child of each kept node, and NEVER
N_SLOTS = "n_slots"  # _l, l ≥ 1: [1] C_l

# -- the catalogue: the trie in CSR form, and the items

TOKEN = "token"  # noqa: S105 – _l, not by rows: [n_{l+1}] token of each node below level l
NODE_OK = "node_ok"  # _0 [F, n_1]: whether a filter allows an item below the node
FIRST = "first"  # _l, not by rows: [n_l, 1] first child of each node; [n_l] where there are ROW_TOKEN
ROW_OK = "row_ok"  # _l, by rows: [F · n_l, V_l] 1 for the children, by token, that exist and are allowed, else 0
ROW_CHILD = "row_child"  # _l, by rows: [n_l · V_l] the children by token
CHILD_OK = "child_ok"  # _l, not by rows: [F · n_l, C_l / 8] the same by place, in bits, the lowest of a byte first
ROW_TOKEN = "row_token"  # noqa: S105 – _l, in `levels_with_row_tokens`, not by rows: [n_l, C_l] the children's tokens
SLOTS = "slots"  # _l, neither by rows nor with ROW_TOKEN: [C_l] = 0 … C_l − 1
LAST_NODE = "last_node"  # _l, like SLOTS: [1] n_{l+1} − 1
LEAF_ITEM = "leaf_item"  # [N] item of each leaf
ITEM_TABLE = (
    "item_table"  # [rows, d] item vectors in the compute type; the encoders read special tokens from it as well
)
ITEM_BIAS = "item_bias"  # whole catalogue: [G, rows] what signals of items add to the score; else [G · rows]

# -- candidates beside the beam's: the D best of the whole catalogue, of the best cells and the items with signals, or
#    of the items with signals alone, by what is known of their score without the path

ITEM_OK = "item_ok"  # whole catalogue: [F, rows] whether a filter allows the item
EXCLUDED_ITEM = "excluded_item"  # whole catalogue: [B, X] items to leave out, 0 in the padding
EXCLUDED_VALUE = "excluded_value"  # whole catalogue: [B, X] NEVER for each of them, 0 in the padding
ITEM_PATH = "item_path"  # [rows, K] tokens of each item
KEEP_JOINED = "keep_joined"  # [1] D
JOINED_SHAPE = "joined_shape"  # [3] = −1, 1, D
JOIN = "join"  # [1] 0, or NEVER to keep these candidates out

# -- candidates by cell (`service.artifact.graphs.cells`): of the best cells whose items a filter allows, as many as fit
#    into R rows; EXCLUDED_VALUE as for the whole catalogue

QUERY_BASIS = "query_basis"  # [d, r] q in few dimensions is q · QUERY_BASIS
CELL_VECTOR = "cell_vector"  # [C, r] centroids in few dimensions
LEAF_VECTOR = "leaf_vector"  # [N, r] items in few dimensions, by leaf
LEAF_BIAS = "leaf_bias"  # [G · N] ITEM_BIAS by leaf
CELL_SPREAD = "cell_spread"  # [1, C] c · mean distance of a cell's items from their centroid
CELL_BIAS = "cell_bias"  # [G, C] what the signals of a cell's items may add
CELL_GROUP = "cell_group"  # [B] row of CELL_BIAS
CELL_LEAF = "cell_leaf"  # [C] first leaf of each cell
CELL_STRIDE = "cell_stride"  # [1] C + 1
LEAF_STRIDE = "leaf_stride"  # [1] N
CELL_OPEN = "cell_open"  # [F, C] whether a filter allows an item of the cell
CELL_FIRST = "cell_first"  # [F · (C + 1)] number of allowed items in the cells before
CELL_PLACE = "cell_place"  # [F · N] places in their cells of the allowed items, one after the other
CELL_SLOT = "cell_slot"  # [1, R + 1] = 0 … R; the last is for what is not read
CELL_NOTHING = "cell_nothing"  # [1, R + 1] zeros
KEEP_CELLS = "keep_cells"  # [1] P, the most cells that a row of the batch reads
KEEP_EXACT = "keep_exact"  # [1] of the items read, those that are compared in all dimensions
CELL_RANK = "cell_rank"  # [1, P] = 0 … P − 1
CELLS_READ = "cells_read"  # [B, 1] cells that each row reads
EXCLUDED_CELL = "excluded_cell"  # [B, X] cells of the items to leave out, 0 in the padding
EXCLUDED_PLACE = "excluded_place"  # [B, X] their places among the allowed items of their cell
SIGNAL_CELL = "signal_cell"  # [B, M] the same for SIGNAL_ITEM
SIGNAL_PLACE = "signal_place"  # [B, M]

# -- the sampler

INVERSE_TEMPERATURE = "inverse_temperature"  # [B]
TOP_P = "top_p"  # [B]
SEED = "seed"  # [B] hashed seeds (`service.artifact.graphs.noise.seed_hash`)
ITEM_HASH = "item_hash"  # [rows] hash of each item's id (`service.artifact.graphs.noise.id_hashes`)

# -- outputs of the decoder and of the sampler; ITEM [B, 1, W] holds catalogue indices, best (or drawn) first, and −1
#    where the catalogue has no more

SCORE = "score"  # [B, 1, W] fused score
LOG_PROB = "log_prob"  # [B, 1, W] log-probability of the path
QUERY = "query"  # [B, d] q
OFFSET = "offset"  # [B, 1, 1] log Σ p(path) − log Σ exp(q · e), both over the candidates: makes q · e + offset of an
#                    item outside the trie comparable with the path's log-probability

# -- outputs of the sampler beside these

LOG_PROPENSITY = "log_propensity"  # [B, 1, W] log-probability of each draw, given those before it
CANDIDATE_SCORE = "candidate_score"  # [B, 1, W + D] fused score of all candidates, NEVER where there is none

# -- further outputs, which a run computes only if it asks for them: all candidates, in no particular order

CANDIDATE_ITEM = "candidate_item"  # [B, 1, W + D] catalogue indices, −1 where there is no candidate; the sampler's
#                                    runs always compute it
CANDIDATE_PATH = "candidate_path"  # [B, 1, W + D] log-probability of the path
CANDIDATE_DENSE = "candidate_dense"  # [B, 1, W + D] q · e


def past_input(array: str) -> str:
    """Returns the name of the input that holds an array of the state."""
    return array if array in (KV, SCALE) else f"past_{array}"


def next_output(array: str) -> str:
    """Returns the name of the output that holds an array of the next state."""
    return f"next_{array}"


def level_input(name: str, level: int) -> str:
    """Returns the name that the input `name` of one level has in the graph."""
    return f"{name}_{level}"
