"""From an event log to a trained network: what happens before an artefact exists. Torch lives here.

In the order of a training:

    data/        event logs → data sets → splits
    texts/       item texts → sentence vectors
    tokenizers/  items → token paths
    online/      served lists and what came of them: the log, the join, reports, what other policies would have earned
    network/     the network and its encoders
    training/    data set → run folder; training/trainer.py is the loop
    evaluation/  how good the lists are, beside baselines
    reference/   slow, obvious versions of the fast paths, for tests and the parity gate
    cli/         the commands `gpt4rec data`, `train`, `evaluate` and `report`
"""

import os

# OpenMP threads that spin at every barrier stall each other where the cores are shared: with two threads on two busy
# cores a training step took 4.8 s spinning and 0.17 s waiting. Read when torch is loaded, so it is set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
