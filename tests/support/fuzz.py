"""Sends thousands of requests, those that the OpenAPI document allows and others.

Run it as `python -m tests.support.fuzz --cases 10000`.

schemathesis sends them to a service of its own process with everything on (keys, tokens, playground, hashed ids), one
after the other and along the links of the document, in rounds of different seeds, by an operator, by a frontend with a
key, by one that may read users and by nobody in turn, until as many as asked for were answered.
What it finds it prints with a request to repeat it, and the command ends with 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.artifacts import write_artifact
from tests.support.processes import PATIENT, Serve, items_of, post, serve

TOKEN = "ops-secret"
SETTINGS = {
    **PATIENT,
    "GPT4REC_API_KEYS": "shop:key-secret,crm:crm-secret:users:items",
    "GPT4REC_OPS_TOKENS": f"alice:{TOKEN}",
    "GPT4REC_METRICS_TOKENS": "prometheus:metrics-secret",
    "GPT4REC_PLAYGROUND": "true",
    "GPT4REC_HASH_USER_IDS": "secret-of-the-fuzzing-command",
}
# Of each round; an operator's finds the most, so every other one is.
CALLERS = {"operator": TOKEN, "key": "key-secret", "operator again": TOKEN, "key with users": "crm-secret",
           "operator once more": TOKEN, "nobody": ""}  # fmt: skip
# In turn. Five of them beside six callers, so every caller calls both.
VERSIONS = ("/v1", "", "/v1", "/v1", "")
# Two of its checks ask for what is not meant. A key in either header is enough, so a bad X-API-Key beside a good
# bearer token is no intrusion (ignored_auth); and a segment, a filter field or a time that no schema can know of may
# be refused (positive_data_acceptance).
NOT_MEANT = "ignored_auth,positive_data_acceptance"
_ROUND_S = 600
# A bad request may also be too large to be looked at, which schemathesis does not take for a refusal by itself.
CONFIGURATION = """\
[checks]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "409", "413",
  "414", "422", "429", "431"]

# Each entry of a batch is answered or refused by itself, so a bad one does not refuse the batch. What an entry may be
# is gone through on /recommend, and not once more.
[[operations]]
include-path = "/recommend/batch"
checks.negative_data_rejection.enabled = false
phases.coverage.enabled = false
"""


@dataclass(frozen=True, slots=True)
class Round:
    cases: int
    failed: int
    operations: int
    said: str


def run(service: Serve, folder: Path, *, examples: int, seed: int, secret: str = TOKEN, version: str = "/v1") -> Round:
    """One round against a running service, by whoever has the secret; the same one for the same seed.

    It calls the paths below a version, or for "" those without one.
    """
    report = folder / f"report-{seed}.json"
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{service.client.base_url}{version}/openapi.json",
        *(("--header", f"Authorization: Bearer {secret}") if secret else ()), "--exclude-checks", NOT_MEANT,
        "--phases", "coverage,fuzzing,stateful", "--max-examples", str(examples), "--seed", str(seed),
        "--generation-database", "none",
        "--report", "json", "--report-json-path", str(report),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_ROUND_S)
    if not report.exists():
        return Round(0, 1, 0, _shortened(done.stdout + done.stderr))
    told: dict[str, Any] = json.loads(report.read_text())
    failed = told["test_cases"]["with_failures"] + told["test_cases"]["errored"] + int(told["exit_code"] != 0)
    return Round(told["test_cases"]["generated"], failed, told["operations"]["tested"], _shortened(done.stdout))


def _shortened(text: str) -> str:
    """Without the middle of long lines: a request may be thousands of characters."""
    return "\n".join(line if len(line) < 400 else f"{line[:200]} … {line[-200:]}" for line in text.splitlines()[-200:])


def faults(service: Serve) -> list[str]:
    """What a service that was asked anything must not show afterwards."""
    metrics, log = service.client.get("/metrics").text, service.log
    found = re.findall(r'gpt4rec_request_duration_seconds_count\{[^}]*status="5[^}]*\} .*', metrics)
    found += [line for line in log.splitlines() if "Traceback" in line or "request_failed" in line or "_broke" in line]
    if "secret" in log:
        found.append("a secret is in the log")
    return found


def statuses(service: Serve) -> dict[str, int]:
    """How many requests were answered with which status."""
    counts: Counter[str] = Counter()
    text = service.client.get("/metrics").text
    for status, count in re.findall(
        r'gpt4rec_request_duration_seconds_count\{[^}]*status="(\d+)"[^}]*\} ([\d.e+]+)', text
    ):
        counts[status] += int(float(count))
    return dict(sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, help="folder of an artefact; without it a small random one")
    parser.add_argument("--cases", type=int, default=10_000, help="least number of answered requests")
    parser.add_argument("--examples", type=int, default=40, help="examples of each operation in a round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--out", type=Path, help="write the outcome here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        artifact = asked.artifact or write_artifact(where / "artifacts")
        with serve(where, "--artifact", str(artifact.resolve()), "--redis", "embedded", **SETTINGS) as service:
            service.client.headers["Authorization"] = f"Bearer {TOKEN}"
            post(service, "u1", *items_of(artifact)[:6])
            rounds: list[Round] = []
            callers = list(CALLERS)
            while sum(statuses(service).values()) < asked.cases and not any(one.failed for one in rounds):
                caller = callers[len(rounds) % len(callers)]
                seed = asked.seed + len(rounds)
                asks = {"examples": asked.examples, "seed": seed, "secret": CALLERS[caller]}
                rounds.append(run(service, where, version=VERSIONS[len(rounds) % len(VERSIONS)], **asks))
                said = f"round {len(rounds)}, {caller}: {rounds[-1].cases} cases, {rounds[-1].failed} failures"
                sys.stdout.write(said + "\n")
            answers = statuses(service)
            outcome = {
                "artefact": artifact.resolve().name,
                "seed": asked.seed,
                "callers": callers[: len(rounds)],
                "cases": sum(one.cases for one in rounds),
                "answered": sum(answers.values()),
                "failures": sum(one.failed for one in rounds),
                "operations": max(one.operations for one in rounds),
                "rounds": len(rounds),
                "answers": answers,
                "faults": faults(service),
            }
    for one in rounds:
        if one.failed:
            sys.stdout.write(one.said + "\n")
    sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    if asked.out is not None:
        asked.out.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    return 1 if outcome["failures"] or outcome["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
