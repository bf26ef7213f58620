"""Published figures of the same data, split and catalogue, each with its source. Pure data.

`read` says how a figure was read: `source` where the named source measured it, `quoted` where the named source quotes
another, `noted` where the project wrote it down earlier and the source was not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BENCHMARK = "github.com/blondered/transformer_benchmark, README"
HSTU_TENSORFLOW = "github.com/NetEase-Media/HSTU-Tensorflow, README"
TABLES = "public tables"


@dataclass(frozen=True, slots=True)
class Figure:
    """Recall@10 and NDCG@10 of a system, leave one out, whole catalogue; None for one that is not given."""

    system: str
    recall: float | None
    ndcg: float | None
    source: str
    read: str = "source"


# Amazon Beauty 2014, 5-core.
BEAUTY = (
    Figure("GRU4Rec", 0.0283, 0.0137, TABLES, "noted"),
    Figure("BERT4Rec", 0.0347, 0.0170, TABLES, "noted"),
    Figure("SASRec, binary loss", 0.0605, 0.0318, BENCHMARK, "quoted"),
    Figure("S3-Rec", 0.0647, 0.0327, BENCHMARK, "quoted"),
    Figure("TIGER", 0.0648, 0.0384, BENCHMARK, "quoted"),
    Figure("CL4SRec", 0.0681, 0.0299, BENCHMARK, "quoted"),
    Figure("ActionPiece", 0.0775, 0.0424, BENCHMARK, "quoted"),
    Figure("LSAN", 0.0785, 0.0410, BENCHMARK, "quoted"),
    Figure("HSTU", 0.0788, 0.0439, BENCHMARK),
    Figure("LC-Rec", 0.0791, 0.0438, TABLES, "noted"),
    Figure("FuXi-α", 0.0809, 0.0451, BENCHMARK),
    Figure("DuoRec", 0.0845, 0.0443, BENCHMARK, "quoted"),
    Figure("SASRec, sampled softmax", 0.0921, 0.0531, BENCHMARK),
    Figure("OpenOneRec", 0.0924, None, "the project's own table, recall@10 alone", "noted"),
    Figure("BARGE", 0.0927, 0.0547, "second hand", "noted"),
    Figure("eSASRec", 0.0928, 0.0523, BENCHMARK),
)
# MovieLens-1M.
ML_1M = (
    Figure("SASRec, binary loss", 0.2500, 0.1341, TABLES, "noted"),
    Figure("BERT4Rec", 0.2843, 0.1537, TABLES, "noted"),
    Figure("SASRec, sampled softmax", 0.2929, 0.1684, BENCHMARK),
    Figure("gSASRec", 0.3003, 0.1726, "Petrov and Macdonald (2023)", "noted"),
    Figure("eSASRec", 0.3133, 0.1772, BENCHMARK),
    Figure("SASRec, cross-entropy", 0.3152, 0.1821, TABLES, "noted"),
    Figure("FuXi-α, recalculated", 0.3164, 0.1813, BENCHMARK),
    Figure("HSTU, large", 0.3294, 0.1893, HSTU_TENSORFLOW, "quoted"),
    Figure(
        "HSTU, full softmax; trains on all but the last event and knows the target's time",
        0.3419,
        0.1944,
        HSTU_TENSORFLOW,
    ),
)
PUBLISHED: Mapping[str, tuple[Figure, ...]] = {"Beauty": BEAUTY, "ml-1m": ML_1M}


def best(data: str) -> tuple[float, float]:
    """Returns the highest published recall@10 and NDCG@10 of a data set, which may be those of two systems."""
    figures = PUBLISHED[data]
    recall = max(one.recall for one in figures if one.recall is not None)
    return recall, max(one.ndcg for one in figures if one.ndcg is not None)
