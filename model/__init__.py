"""Data, tokenizers, network, training and evaluation: what happens before an artefact exists. Torch lives here."""

import os

# OpenMP threads that spin at every barrier stall each other where the cores are shared: with two threads on two busy
# cores a training step took 4.8 s spinning and 0.17 s waiting. Read when torch is loaded, so it is set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
