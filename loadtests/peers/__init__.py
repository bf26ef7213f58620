"""Peers: the same artefact behind what people would use instead of this service.

How to run the comparison (the first three commands once):

    python -m loadtests.peers install                       environments, under .peers/
    gpt4rec export --run RUN --out ARTIFACT
    python -m loadtests.compare --artifact ARTIFACT --run RUN --data DATA --tune     tries every setting; 8 minutes
    python -m loadtests.compare --artifact ARTIFACT --run RUN --data DATA            the comparison; 15 minutes

`--quick --only fastapi --only gpt4rec` is a trial of a few systems and writes nothing.

Each peer has its own environment, from a pinned file in `requirements/`; `.peers/` is not committed. wrk (a
package of most Linux distributions) measures the settings and cross-checks; without it, this repository's driver
measures the settings. All processes of a system end before the next one starts.

The systems, all on the same cores, with the same artefact, k = 10, and a beam of 5 (64 hypotheses a level):

- **gpt4rec**: `gpt4rec serve` with its embedded Valkey. Events and states are stored; a request names a user.
- **litserve**, **bentoml**, **fastapi** (one route, a thread): the exported graphs through this repository's engine
  (`ranker.py`: onnxruntime without spinning threads), behind another server. *encode + decode*: 50 events in the body,
  because the server keeps no state. *decode only*: the body holds a prepared `h`, computed and kept elsewhere.
  Bodies are as small as possible (columns; base64); answers are item ids and scores.
- **torch eager**: FastAPI, the trained weights, a beam search in Python over the trie. *One hypothesis at a time* is
  how a notebook does it; *batched over the beam* is a more careful version.
- **HF generate**: `transformers` with `prefix_allowed_tokens_fn` on a GPT-2 of the same width, layers and heads, with
  random weights: its lists are meaningless, its speed is not.

Before timing, every system with trained weights must give the lists of the exported graphs for 20 users, item by
item; `generate` must give ten different items of the catalogue.

Settings. onnxruntime: one thread and two were tried for every peer. FastAPI: uvloop and httptools, no access log;
processes, and threads of a process. LitServe: worker processes, API servers, batch size and time-out, no request
tracking, no client file (its `fast_queue` does nothing in 0.2.19: Lightning-AI/LitServe #751). BentoML: workers,
threads, adaptive batching; access log and metrics off. `--tune` tries each by a closed loop of 8 connections and keeps
the figures in `loadtests/results/peers_tuning.json`; the comparison takes the fastest, and the row of a system in
`peers.json` lists all that were tried.

Rates are the highest of an open loop with p99 ≤ 50 ms and no errors (`loadtests.load.capacity`), for gpt4rec with 99 %
of the lists from the full model. `generate` takes longer than 50 ms and is measured one request at a time.
"""
