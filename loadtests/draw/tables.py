"""Tables of `docs/performance.md`, from the recorded figures. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

Results = Mapping[str, Any]

NOT_YET = "*Not measured yet.*"
# Texts of the criteria whose names do not explain themselves.
MEANING = {
    "1 cpu": "Processor time of a warm /recommend, store included ÷ (bare typed FastAPI route + one decoder run)",
    "1 cpu without Valkey": "The same, the service's own processor time only",
    "1 cpu in loops": "The same with Valkey, each part measured in a loop of its own",
    "4 history p50": "/recommend p50 with 2,000 events ÷ with 50",
    "4 history event": "Processor time of an event (ingest + encode) with 2,000 events before it ÷ with 50",
    "5 redis blob": "Largest encoder state in Redis, of all users",
    "5 redis log": "Largest event log in Redis: a full receptive field with 16-character ids",
    "5 redis flood": "All keys of one user after a flood of events",
    "6 reflected": "Acknowledged events that the next /recommend of the other replica reflects",
    "6 reflected p50": "From the acknowledgement to the answer that reflects it, p50",
    "6 reflected p99": "From the acknowledgement to the answer that reflects it, p99",
    "7 start": "From exec to ready",
    "7 start memory": "Resident memory when ready",
    "7 start torch": "Files of torch in the process",
    "8 soak errors": "Errors in five minutes of replay at 70 % of capacity",
    "8 soak growth": "Growth of resident memory in the second half of the replay",
}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Formats a table; the first column is text, the others are figures."""
    head = f"| {' | '.join(columns)} |"
    line = f"|---{'|---:' * (len(columns) - 1)}|"
    return "\n".join([head, line, *(f"| {' | '.join(cell(value) for value in row)} |" for row in rows)])


def cell(value: Any) -> str:
    """Formats a value for readers: three significant digits, thousands separators, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def criteria(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws every row with its limit, whether it holds, and the number of its command in the list below."""
    if not rows:
        return NOT_YET
    commands = {command: number for number, command in enumerate(dict.fromkeys(row["command"] for row in rows), 1)}
    lines = [
        [f"{row['criterion']}: {MEANING[row['criterion']]}" if row["criterion"] in MEANING else row["criterion"],
         f"{cell(row['value'])} {row['unit']}", row["limit"], row["holds"], row["date"],
         commands[row["command"]]]
        for row in rows
    ]  # fmt: skip
    table = markdown(["criterion", "figure", "limit", "holds", "measured", "by"], lines)
    listed = "\n".join(f"{number}. `{command}`" for command, number in commands.items())
    return f"{table}\n\n*By* is the command:\n\n{listed}"


def limits(rows: Sequence[Mapping[str, Any]]) -> str:
    """Says how many of the criteria with a limit hold, and lists the others; empty where no row has a limit."""
    limited = [row for row in rows if row["limit"] is not None]
    if not limited:
        return ""
    failed = [row for row in limited if not row["holds"]]
    if not failed:
        return f"All {len(limited)} criteria with a limit hold."
    lines = [f"- {row['criterion']}: {cell(row['value'])} {row['unit']}, limit {row['limit']}." for row in failed]
    lead = f"{len(limited) - len(failed)} of {len(limited)} criteria with a limit hold. Missed:"
    return "\n".join([lead, "", *lines])


def machine(files: Mapping[str, Results | None], rows: Sequence[Mapping[str, Any]]) -> str:
    """Names every machine that a figure comes from, and the versions of the packages."""
    machines = sorted({str(row["machine"]) for row in rows} | {str(f["machine"]) for f in files.values() if f})
    if not machines:
        return NOT_YET
    versions: dict[str, set[str]] = {}
    for file in files.values():
        for package, version in (file or {}).get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    used = ", ".join(f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()))
    return f"Measured on: {'; '.join(machines)}." + (f" Versions: {used}." if used else "")


def cpu(found: Results) -> str:
    """Draws the processor time of a warm request and of its parts."""
    parts = found["median"]
    names = {"service": "the service", "valkey": "its Valkey", "bare_route": "bare typed FastAPI route",
             "decoder_run": "one decoder run, batch 1"}  # fmt: skip
    rows = [
        [
            names.get(part, part),
            value,
            value_range([one[part] for one in found["rounds"]]),
            found["median_in_loops"][part],
        ]
        for part, value in parts.items()
    ]
    return markdown(["µs of processor time a request", "in turns, median", "range", "each in a loop, median"], rows)


def peers(found: Results) -> str:
    """Draws a line for each system and variant, and what each of them cannot do."""
    systems = found["systems"]
    best = max((one["rps"] for one in systems), default=0.0)
    columns = ["system", "variant", "requests/s", "fastest ÷ this", "p50 ms", "p99 ms", "CPU ms a request", "wrk"]
    rows = []
    for one in systems:
        times = f"{cell(best / one['rps'])} ×" if one["rps"] else None
        wrk_rate = (one.get("wrk") or {}).get("rps")
        figures = (one["rps"], times, one["p50_ms"], one["p99_ms"], one.get("cpu_ms_a_request"), wrk_rate)
        rows.append([one["name"], one["variant"], *figures])
    lead = (
        "Requests a second at p99 ≤ 50 ms, medians over the rounds. *Decode only* receives the user's state, which "
        "this service keeps; *encode + decode* computes it from the history for every request. *wrk* is the rate of a "
        "closed loop."
    )
    notes = [f"- {one['name']}, {one['variant']}: {'; '.join(said)}." for one in systems if (said := _said(one))]
    return "\n\n".join([lead, markdown(columns, rows), *(["\n".join(notes)] if notes else []), by_command(found)])


def _said(system: Results) -> list[str]:
    """Returns the notes that belong to the figures of a system."""
    method = system.get("method", "")
    return [
        *([method] if method and not method.startswith("highest") else []),
        *(["limited by the generator: the real rate is at least this"] if system.get("generator_bound") else []),
        *(f"cannot: {what}" for what in system.get("cannot", [])),
        *system.get("notes", []),
    ]


def history(found: Results) -> str:
    """Draws latency and event cost by the length of the history."""
    rows = [
        [f"{length:,} events", found["recommend_p50_ms"][n], found["event_cpu_us"][n]]
        for n, length in enumerate(found["lengths"])
    ]
    return markdown(["history", "/recommend p50 ms", "processor time of an event, µs"], rows)


def curves(found: Results) -> str:
    """Draws a table for each curve."""
    made = ["One request at a time, except in the table over concurrency. Batches run without HTTP and store."]
    titles = {"history": "events of the history", "beam": "beam width", "concurrency": "requests at once"}
    for name, points in found["curves"].items():
        axis = next(iter(points[0]))
        if name == "batch":
            columns = ["rows of a batch", "decode p50 ms", "a row", "encode of one event p50 ms", "a row"]
            rows = [
                [p[axis], p["decode_ms"]["p50"], p["decode_ms_a_row"], p["encode_ms"]["p50"], p["encode_ms_a_row"]]
                for p in points
            ]
        else:
            columns = [titles.get(name, name), "p50 ms", "p99 ms", "requests/s", "full lists"]
            rows = [[p[axis], p["ms"]["p50"], p["ms"]["p99"], p["rate"], f"{p['full_share']:.1%}"] for p in points]
        made.append(markdown(columns, rows))
    return "\n\n".join([*made, by_command(found)])


def redis(found: Results) -> str:
    """Draws the bytes of a user in Redis, and memory by the number of users."""
    rows = [[name, sizes["users"], sizes["p50"], sizes["mean"], sizes["max"]]
            for name, sizes in (("encoder state", found["blob_bytes"]), ("event log", found["log_bytes"]),
                                *found["other_keys_bytes"].items()) if sizes]  # fmt: skip
    growth = [[p["users"], p["redis_mib"], p["service_mib"], p["recommend_ms"]["p50"], p["recommend_ms"]["p99"]]
              for p in found["growth"]]  # fmt: skip
    flood = found["flood"]
    return "\n\n".join(
        [
            "Bytes by `MEMORY USAGE … SAMPLES 0`, of one user:",
            markdown(["key", "users", "p50", "mean", "largest"], rows),
            f"A flood of {flood['events']:,} events of one user leaves {flood['bytes']:,} bytes.",
            markdown(["users", "Valkey MiB", "service MiB", "/recommend p50 ms", "p99 ms"], growth),
        ]
    )


def reflected(found: Results) -> str:
    """Draws how soon an acknowledged event reaches the lists of another replica."""
    ms, missed = found["ack_to_reflected_ms"], sum(found["missed"].values())
    rungs = ", ".join(f"{rung} {count:,}" for rung, count in sorted(found["rungs"].items()))
    return (
        f"{found['trials']:,} clicks of {found['users']:,} users through one replica, each followed immediately by a "
        f"/recommend at the other: {missed:,} lists did not reflect it. {found['compared']:,} lists were compared with "
        f"a later one. Rungs: {rungs}. From the acknowledgement to the answer: p50 {cell(ms['p50'])} ms, "
        f"p99 {cell(ms['p99'])} ms."
    )


def start(found: Results) -> str:
    """Draws start-up time and memory."""
    rows = [["ready, s", middle(found["ready_s"]), value_range(found["ready_s"])],
            ["resident memory, MiB", middle(found["resident_mib"]), value_range(found["resident_mib"])],
            ["of it private, MiB", middle(found["private_mib"]), value_range(found["private_mib"])]]  # fmt: skip
    return markdown(["", "median", "range"], rows)


def soak(found: Results) -> str:
    """Draws the run of several minutes: latency by route and by rung."""
    run = found["run"]
    percentiles = ("p50", "p95", "p99", "p99.9", "max")
    routes = [[route, one["count"], *(one[p] for p in percentiles)] for route, one in run["routes"].items()]
    rungs = [[rung, f"{one['share']:.2%}", one["p50"], one["p99"]] for rung, one in run["rungs"].items()]
    memory, generator, errors = found["resident_mib"], run["generator"], sum(run["errors"].values())
    said = (
        f"Capacity {cell(found['capacity']['rate'])} requests/s; {found['minutes']:g} minutes at "
        f"{run['offered_rate']:.0f} requests/s, {run['requests']:,} requests of {found['users']:,} users, "
        f"{errors:,} errors. Resident memory {memory[0]:.0f} MiB at the start, {memory[-1]:.0f} MiB at the end. "
        f"The generator took {generator['cpu_share']:.0%} of a core and sent {generator['late_share']:.2%} of the "
        "requests more than 5 ms late."
    )
    return "\n\n".join(
        [
            said,
            markdown(["route", "answers", *(f"{p} ms" for p in percentiles)], routes),
            markdown(["rung", "share", "p50 ms", "p99 ms"], rungs),
            by_command(found),
        ]
    )


def wrk(found: Results) -> str:
    """Draws wrk and our own driver beside each other."""
    rows = [[one["what"], one["rate"], one["p50_ms"], one["p99_ms"]] for one in found["rows"]]
    return "\n\n".join([found["method"], markdown(["", "requests/s", "p50 ms", "p99 ms"], rows), by_command(found)])


def scale(found: Results) -> str:
    """Draws, by catalogue size, decoding, its constraint, the trie, and the figures of opening the artefact."""
    sizes = list(found["decode_ms"])
    probes = found.get("probes", {})
    probed = list(dict.fromkeys(name for size in sizes for name in probes.get(size, {})))
    rows = [
        ["decode p50, ms", *(found["decode_ms"][size]["p50"] for size in sizes)],
        ["decode p95, ms", *(found["decode_ms"][size]["p95"] for size in sizes)],
        *(
            [f"graph alone, constraint {way}, p50, ms", *(found["constraint_ms"][size][way]["p50"] for size in sizes)]
            for way in found["constraint_ms"][sizes[0]]
        ),
        *(
            [
                f"the same at W = {found['narrow']}, constraint {way}, p50, ms",
                *(narrow[size][way]["p50"] for size in sizes),
            ]
            for narrow in [found.get("constraint_narrow_ms", {})]
            for way in narrow.get(sizes[0], {})
        ),
        ["building the trie, s", *(found["trie_build_s"].get(size) for size in sizes)],
        *([name, *(probes.get(size, {}).get(name) for size in sizes)] for name in probed),
    ]
    steps = [[name, ms["p50"] * 1000.0, ms["p95"] * 1000.0] for name, ms in found["step_ms"].items()]
    return "\n\n".join(
        [
            f"Lists of {found['k']} at W = {found['width']}, one thread; synthetic codes, distributed like real ones.",
            markdown(["items", *(f"{int(size):,}" for size in sizes)], rows),
            "One constrained step over the largest catalogue, beside a reference implementation of the published "
            "method of youtube/static-constraint-decoding:",
            markdown(["step", "p50 µs", "p95 µs"], steps),
            by_command(found),
        ]
    )


SECTIONS: dict[str, Callable[[Results], str]] = {
    "cpu": cpu, "peers": peers, "scale": scale, "history": history, "curves": curves, "redis": redis,
    "reflected": reflected, "start": start,
    "soak": soak, "wrk": wrk,
}  # fmt: skip


def by_command(found: Results) -> str:
    """Returns the command and the date of a measurement."""
    return f"`{found['command']}`, {found['date']}" if found.get("command") else str(found.get("date", ""))


def value_range(values: Sequence[float]) -> str:
    """Formats the smallest and the largest of some values."""
    return f"{cell(float(min(values)))} … {cell(float(max(values)))}" if values else "–"


def middle(values: Sequence[float]) -> float | None:
    """Returns the median; None if there are no values."""
    return float(median(values)) if values else None
