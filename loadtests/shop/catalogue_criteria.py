"""What the live catalogue is held to. The limits were written before anything was measured."""

from __future__ import annotations

# Every trial must hold: a new item may be in the lists of both replicas so many seconds after the answer, and a
# disabled one is in none of theirs.
NEW_S, GONE_S = 5.0, 1.0
TRIALS = 100
# Changes of items a minute under a load of lists. Blocks of lists with and without changes alternate, so that whatever
# else happens on the machine meets both.
UPDATES_PER_MINUTE = 10_000
PAIRS, BLOCK_S = 10, 12.0
# By how much more lists may be later than their budget during the changes, as a share of all lists.
LATER = 0.01
# Processor time that the changes take of a replica, in cores. Unlike lateness it hardly depends on what else runs.
CORES = 0.25

NEW = "Catalogue: new items in the lists of both replicas in time"
NEW_LONGEST = "Catalogue: new items in the lists of both replicas, the longest time"
GONE = "Catalogue: disabled items gone from both replicas in time"
GONE_LONGEST = "Catalogue: disabled items gone from both replicas, the longest time"
BACK = "Catalogue: disabled items that a list had later"
UPDATES = "Catalogue: changes of items a minute"
CPU = "Catalogue: processor time of a replica for 10,000 changes a minute"
MORE_LATE = "Catalogue: lists later than their budget, during changes less without"
LATE_DURING = "Catalogue: lists later than their budget during changes"
LATE_WITHOUT = "Catalogue: lists later than their budget without changes"
MEDIAN_DURING, TAIL_DURING = "Catalogue: median of a list during changes", "Catalogue: p99 of a list during changes"
MEDIAN_WITHOUT, TAIL_WITHOUT = "Catalogue: median of a list without changes", "Catalogue: p99 of a list without changes"
