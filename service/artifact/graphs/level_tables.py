"""Which tables the decoder looks up the children of a level in. The sizes of the codes alone decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

# Entries of a table by node and token up to which a level is looked up by rows.
_ROWS_MAX = 2**18
# Nodes of a level up to which the tokens of their children are kept in rows, as long as the most that one node has.
_NODES_MAX = 2**17
# Tokens of a level up to which they are, whatever the number of nodes.
_TOKENS_MAX = 64


def levels_by_rows(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 whose children the decoder finds by token, in a table of all nodes and tokens.

    These are the first levels, as many as fit. At such a level C_l = V_l and a child's place is its token. Looking up
    a row is one copy, where children in CSR form are gathered one by one. The choice depends on the sizes of the codes
    alone, so that a graph fits whatever items come and go.
    """
    return frozenset(
        level
        for level in range(1, len(code_sizes))
        if math.prod(int(size) for size in code_sizes[: level + 1]) <= _ROWS_MAX
    )


def levels_with_row_tokens(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 whose children's tokens fit in one table, a row for each node.

    They have few nodes, or few tokens.
    """
    return levels_of_few_nodes(code_sizes) | frozenset(
        level for level in range(1, len(code_sizes)) if int(code_sizes[level]) <= _TOKENS_MAX
    )


def levels_of_few_nodes(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 that have rows of tokens, of int32, in graphs that read a byte of mask for each node."""
    return frozenset(
        level
        for level in range(1, len(code_sizes))
        if math.prod(int(size) for size in code_sizes[:level]) <= _NODES_MAX
    )


def token_dtype(code_size: int) -> Literal["uint8", "int32"]:
    """Returns the type of the tokens of a level in rows of tokens."""
    return "uint8" if code_size <= 256 else "int32"
