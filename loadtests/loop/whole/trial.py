"""What off-policy evaluation foretells of two policies, and the experiment that shows them to users.

The control and the arm `equal` draw their lists at a high temperature; `better` draws at a low one. Before anybody sees
these lists, `gpt4rec ope` judges both policies by lists of visits of other users, of which a share was drawn.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import orjson

from loadtests.loop.whole.cycles import BEST, Tell, policies
from loadtests.loop.whole.plan import Plan, Progress
from loadtests.loop.whole.simulated import Simulated
from loadtests.loop.whole.site import Site, run, until
from model.online.log_folder import LogFolder
from model.online.online_report import online_report
from model.online.partitions import LogRange
from service.common.atomic_files import write_aside

NAME, CONTROL, BETTER, EQUAL = "simulated", "control", "better", "equal"
FORETOLD, EXPERIMENT = "foretold", "experiment"
_FLAT = {"strategy": "temperature", "temperature": 2.5}
_SHARP = {"strategy": "temperature", "temperature": 0.4}
ARMS = {CONTROL: _FLAT, BETTER: _SHARP, EQUAL: _FLAT}
# Of the lists before the experiment, so many are drawn.
_EXPLORED = 0.5


def foretell(progress: Progress, simulated: Simulated, site: Site, tell: Tell) -> None:
    """Has users visit while half of the lists are drawn, and asks `gpt4rec ope` about each arm."""
    if not progress.begin(FORETOLD, _now_ms()):
        return
    site.ask("DELETE", "/ops/holdout")
    site.ask("PUT", "/ops/policies", policies(BEST, _EXPLORED))
    simulated.visit(site.url, simulated.trial(0), _telling(tell, "before the experiment"))
    site.drain()
    since = datetime.fromtimestamp(progress.parts[FORETOLD]["from_ms"] // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    found: dict[str, Any] = {}
    for arm in (BETTER, EQUAL):
        tell(f"off-policy evaluation of the arm {arm}")
        file, report = progress.folder / f"{arm}.yaml", progress.folder / f"ope-{arm}.json"
        write_aside(file, orjson.dumps(policies(ARMS[arm])))  # JSON is YAML
        report.unlink(missing_ok=True)
        run(progress.folder, "ope", "--log", str(site.log), "--policies", str(file), "--from", since,
            *_least(progress.plan), "--json", str(report), good=(0, 1))  # fmt: skip
        found[arm] = orjson.loads(report.read_bytes())
    progress.end(FORETOLD, _now_ms(), arms=found)


def experiment(progress: Progress, simulated: Simulated, site: Site, tell: Tell) -> None:
    """Has users visit in the experiment, and reads its report and the values of its arms."""
    if not progress.begin(EXPERIMENT, _now_ms()):
        return
    if NAME not in site.running():
        arms = [
            {"name": arm, "share": share, "policies": policies(ARMS[arm])}
            for arm, share in zip(ARMS, (0.34, 0.33, 0.33), strict=True)
        ]
        site.ask("POST", "/ops/experiments", {"name": NAME, "arms": arms})
    stretch = simulated.trial(1)
    simulated.visit(site.url, stretch, _telling(tell, "experiment"))
    site.drain()
    wanted = simulated.lists(stretch)
    path = f"/ops/experiments/{NAME}"
    until(lambda: _lists(site.ask("GET", path)) >= wanted, "the sink did not count the lists of the experiment")
    report = site.ask("GET", path)
    span = LogRange(LogFolder(str(site.log)), from_ms=progress.parts[EXPERIMENT]["from_ms"])
    values = {row["group"]: row for row in online_report(span)["groups"]["arm"]}
    site.ask("POST", f"{path}/stop", {"reason": "everybody has visited"})
    measured = {arm: values[f"{NAME}={arm}"]["clicks"] for arm in ARMS}
    progress.end(EXPERIMENT, _now_ms(), report=report, measured=measured)


def _lists(report: dict[str, Any]) -> int:
    return sum(arm["lists"] for arm in report["arms"])


def _telling(tell: Tell, what: str) -> Any:
    return lambda done, of: tell(f"{what}: {done:,} of {of:,} visits")


def _least(plan: Plan) -> list[str]:
    """Worlds that are too small for a figure are tried all the same."""
    return [] if plan.users >= Plan().users else ["--least-effective", "2"]


def _now_ms() -> int:
    return int(time.time() * 1000)
