"""`gpt4rec demo`: data → train → compare → export → serve → recommend, on MovieLens-100K.

The results of each step are kept under a key of its inputs (data, configuration, code). So a second run continues where
the first one ended, and after a change to the code the model is trained again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deploy.demo_service import SHOWN, DemoError, Service
from service.cli.messages import complain
from service.settings.service_settings import DEFAULT_POLICIES

app = typer.Typer(add_completion=False)

TRAIN_MINUTES = 2.8
SCORE_WIDTH = 6
METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr@10", "coverage@10", "novelty@10")
ROOT = Path(__file__).resolve().parent.parent


@app.command(name="demo")
def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit after showing the recommendations.")] = False,
    home: Annotated[Path, typer.Option(help="Folder for data, runs and artefacts.")] = Path(".demo"),
    port: Annotated[int, typer.Option(help="Port of the service; 0 picks a free one.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.05, help="Limit for the training, in minutes.")] = TRAIN_MINUTES,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
) -> None:
    """Train GPT4Rec on MovieLens-100K, serve it, and show its recommendations."""
    console = Console()
    started = time.monotonic()
    try:
        artifact = prepare(console, home, minutes, seed)
        with Service(artifact, home, port) as service:
            service.wait_until_ready()
            show(console, service, home)
            invite(console, service, time.monotonic() - started)
            if not once:
                console.print("\nserving; press Ctrl-C to stop")
                with contextlib.suppress(KeyboardInterrupt):
                    service.process.wait()
    except KeyboardInterrupt:
        console.print("interrupted; run the demo again to continue")
        raise typer.Exit(1) from None
    except (DemoError, httpx.HTTPError) as error:
        complain(error)
        raise typer.Exit(1) from error


# ── data, training, export ──────────────────────────────────────────────────────────────────────────────


def prepare(console: Console, home: Path, minutes: float, seed: int) -> Path:
    """Returns the folder of the demo's artefact, after training and exporting the model if necessary."""
    data = home / "data" / "ml-100k"
    if not (data / "meta.json").exists():
        step(console, 1, "data: downloading MovieLens-100K")
        run("data", "movielens-100k", "--out", str(data))
    else:
        step(console, 1, "data: MovieLens-100K is here already")
    key = content_key(data, minutes, seed)
    folder, artifacts = home / "runs" / key, home / "artifacts" / key
    report = artifacts / "evaluation.json"
    if not report.exists():
        train(console, data, folder, minutes, seed)
        step(console, 3, "export: writing the ONNX graphs and the fallback, and checking them against the model")
        run("export", "--run", str(folder), "--out", str(artifacts), "--latest")
        step(console, 4, "evaluation: comparing the exported model with the baselines on the test users")
        aside = artifacts / ".evaluation.json"
        run("evaluate", "--artifact", str(artifacts), "--data", str(data), "--json", str(aside), quiet=True)
        aside.replace(report)
    else:
        step(console, 2, f"model: trained before (run {key})")
    console.print(comparison(read_json(report)))
    return artifacts


def train(console: Console, data: Path, folder: Path, minutes: float, seed: int) -> None:
    """Trains the model, or continues a training that was interrupted."""
    if (folder / "metrics.json").exists():
        return
    step(console, 2, f"training: at most {minutes:g} minutes")
    resume = ["--resume"] if (folder / "checkpoint.safetensors").exists() else []
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)  # it holds no checkpoint
    chosen = [] if resume else ["--seed", str(seed)]
    run("train", "--data", str(data), "--out", str(folder), "--max-minutes", str(minutes), *chosen, *resume)


def content_key(data: Path, minutes: float, seed: int) -> str:
    """Returns a key of everything the model depends on: data, limit for the training, seed and code."""
    digest = hashlib.sha256()
    digest.update(str(read_json(data / "meta.json").get("fingerprint")).encode())
    digest.update(f"{minutes} {seed}".encode())
    for part in ("model", "export", "service/artifact", "service/engine"):
        for file in sorted((ROOT / part).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def read_json(file: Path) -> dict[str, Any]:
    """Returns the object of a file that an earlier step wrote. Raises DemoError if the file is damaged."""
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DemoError(f"{file} is damaged ({error}): remove {file.parent} and run the demo again") from error
    return content


def step(console: Console, number: int, text: str) -> None:
    """Announces one of the five steps."""
    console.print(f"[bold]{number}/5[/] {text}", highlight=False)


def run(*arguments: str, quiet: bool = False) -> None:
    """Runs a `gpt4rec` command in a process of its own. Raises DemoError if it fails."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE if quiet else None, text=True)  # noqa: S603
    if done.returncode:
        output = f":\n{done.stderr}" if quiet else ""
        raise DemoError(f"`gpt4rec {' '.join(arguments)}` ended with exit code {done.returncode}{output}")


def comparison(report: dict[str, Any]) -> Table:
    """Returns the figures of all systems, and whether the model's lead is more than chance."""
    table = Table(title=f"{report['users']} test users, {report['protocol']}")
    table.add_column("metric")
    for system in report["systems"]:
        table.add_column(system, justify="right")
    for metric in METRICS:
        cells = [f"{figures[metric]:.4f}" for figures in report["systems"].values()]
        table.add_row(metric, *cells)
    table.caption = "\n".join(
        f"NDCG@10 {c['difference']:+.4f} against {c['baseline']}: "
        f"95 % interval {c['low']:+.4f} … {c['high']:+.4f}, p = {c['p_value']:.4f} (paired bootstrap)"
        for c in report["comparisons"]
        if c["metric"] == "ndcg@10"
    )
    return table


# ── recommendations ─────────────────────────────────────────────────────────────────────────────────────


def show(console: Console, service: Service, home: Path) -> None:
    """Shows the model's list for one user of each segment, and the fallback's list for the first of them."""
    step(console, 5, f"serving on {service.url}: the lists of one user of each segment")
    titles, histories = real_histories(home / "data" / "ml-100k")
    policies = yaml.safe_load(DEFAULT_POLICIES.read_text("utf-8"))
    wanted = {segment["name"] for segment in policies["segments"]}
    seen: dict[str, tuple[str, list[str]]] = {}
    for name, history in histories:
        if wanted <= set(seen):
            break
        user, watched = f"demo-{name}", [titles[event["item_id"]] for event in history]
        service.replace_history(user, history)
        answer = service.recommend(user)
        if answer["segment"] not in seen:
            seen[answer["segment"]] = (user, watched)
            console.print(answer_table(answer, watched))
    user, watched = next(iter(seen.values()))
    with service.fallback_forced():
        answer = service.recommend(user)
    console.print("the first user again, while an operator forces the fallback:")
    console.print(answer_table(answer, watched))


def invite(console: Console, service: Service, took_s: float) -> None:
    """Says what to open and to try while the service runs."""
    console.print(f"\nready after {took_s:.0f} s\n\n[bold]open {service.url}/playground[/]", highlight=False)
    console.print("  click on items and watch the list change\n", highlight=False)
    console.out(service.addresses(), highlight=False)  # as it is: commands must survive being copied


def real_histories(data: Path) -> tuple[dict[str, str], list[tuple[str, list[dict[str, Any]]]]]:
    """Returns the titles of all items, and histories of some users of the data set.

    Histories are moved in time so that they end an hour ago. One is cut short, like that of a new user.
    """
    from model.data.dataset import Dataset, sequences

    dataset = Dataset.load(data)
    titles = {row["item_id"]: row["title"] or row["item_id"] for row in dataset.items.iter_rows(named=True)}
    log = sequences(dataset)
    order = log.lengths.argsort(kind="stable")
    chosen = [int(order[len(order) * share // 100]) for share in range(5, 100, 5)]
    now = int(time.time() * 1000)
    histories: list[tuple[str, list[dict[str, Any]]]] = []
    for number, row in enumerate([chosen[0], *chosen]):
        rows = log.user(row)
        items, times = log.item[rows], log.time_ms[rows]
        if number == 0:
            items, times = items[:2], times[:2]
        shift = now - 3_600_000 - int(times[-1])
        events = [
            {"item_id": log.item_ids[item], "type": "rating", "timestamp": int(t) + shift}
            for item, t in zip(items.tolist(), times.tolist(), strict=True)
        ]
        histories.append(("new" if number == 0 else log.user_ids[row], events))
    return titles, histories


def answer_table(answer: dict[str, Any], history: list[str]) -> Table:
    """Returns the newest items of a history beside the recommended ones and the reason for each."""
    caption = (
        f"segment {answer['segment']} · {answer['strategy'] or 'no decoding'} · source {answer['source']} "
        f"({answer['reason'] or answer['rung']}) · {answer['latency_ms']:.1f} ms"
    )
    table = Table(title=caption, title_justify="left", title_style="bold", expand=True)
    # Long titles are shortened, scores never.
    table.add_column(f"history, newest first ({len(history)} in all)", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("recommended", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("because of", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("score", justify="right", no_wrap=True, min_width=SCORE_WIDTH)
    recent = history[-SHOWN:][::-1]
    for row in range(SHOWN):
        item = answer["items"][row] if row < len(answer["items"]) else None
        table.add_row(
            recent[row] if row < len(recent) else "",
            "" if item is None else str(item["title"]),
            "" if item is None else reason(item),
            "" if item is None else f"{item['score']:.2f}",
        )
    return table


def reason(item: dict[str, Any]) -> str:
    """Returns the event that carried most of an item, and through what; else the signal that contributed most."""
    because = item.get("because") or {}
    if event := because.get("event"):
        return f"{event['title'] or event['item_id']} ({event['by']})"
    contributions: dict[str, float] = because.get("contributions") or {}
    return max(contributions, key=lambda name: contributions[name]) if contributions else ""
