"""How wide the compared systems search: as wide as the runs of the artefact that they share."""

from __future__ import annotations

from service.artifact.artifact import Artifact
from service.engine.decoding import Decoding, SearchSizes, joined_width, least_candidates, search_sizes

# What every system is asked for.
BEAM = Decoding("beam", beam_width=5)


def sizes_of(artifact: Artifact, k: int) -> SearchSizes:
    """Returns the size of the run that makes a list of `k` by this beam."""
    width = BEAM.width(k)
    return search_sizes(
        width, joined_width(k, width), sampled=False, dense=bool(artifact.manifest.get("dense_candidates")),
        least=least_candidates(BEAM, k, width), children=max(1, artifact.trie.branching[-1]),
        measured=artifact.run_sizes,
    )  # fmt: skip
