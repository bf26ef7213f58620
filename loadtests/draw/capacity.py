"""Tables of `docs/capacity.md`, from the measured costs. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loadtests.draw.tables import NOT_YET, Results, markdown
from loadtests.fleet import capacity_model as model
from loadtests.fleet.prices import COMPUTE, HOURS_A_MONTH, LEAST_USD_HOUR, MANAGED, MEMORY, SMALL_COMPUTE, SMALL_MEMORY

# Users from a thousand to 100 million; one in a hundred asks for a list within a second, and causes an event.
SIZES = tuple(10.0**power for power in range(3, 9))
LISTS_A_USER, EVENTS_A_LIST = 0.01, 1.0
ASSUMED = model.Assumptions()
UNITS = model.Units(machine_cores=COMPUTE.cores, machine_gbit=COMPUTE.gbit)
_MIDDLE = model.Demand(users=1e6, lists=1e4, events=1e4)


def parts(costs: Results) -> str:
    """Draws what the parts of a list and of an event take."""
    of_list = model.Costs(costs).of_lists()
    events = costs["events"]
    rows: list[Sequence[Any]] = [
        ["main thread, each list", of_list.main, "µs"],
        ["main thread, for the turns of a list that is alone", of_list.turns, "µs"],
        ["decoder, each run", of_list.run, "µs"],
        ["decoder, each row of a run", of_list.row, "µs"],
        ["Redis, each list", of_list.store, "µs"],
        ["sender of the load, each request", of_list.sender, "µs"],
        ["an event alone in its request, encoding included", events["1"]["service"], "µs"],
        ["an event among 50 of a request", events["50"]["service"], "µs"],
        ["Redis, an event alone", events["1"]["store"], "µs"],
        ["two runs at once ÷ one", costs["shared"], "×"],
        ["request and answer of a list", costs["wire"]["request"] + costs["wire"]["answer"], "bytes"],
        ["to and from Redis for a list", costs["wire"]["store"], "bytes"],
        ["memory of a worker that no other process shares", costs["service_mib"]["private"], "MiB"],
    ]
    users = [[f"a user with {length} events, in Redis", found["all"], "bytes"]
             for length, found in costs["user_bytes"].items()]  # fmt: skip
    return markdown(["part", "cost", "unit"], [*rows, *users])


def checked(found: Results) -> str:
    """Draws the prediction beside the run."""
    predicted = found["predicted"]
    off = (predicted["rate"] - found["measured"]) / found["measured"]
    rows = [
        ["highest rate with p99 ≤ 50 ms, lists/s", predicted["rate"], found["measured"]],
        ["rows of a run of the decoder there", predicted["batch"], None],
        ["difference, %", 100.0 * off, None],
    ]
    rounds = ", ".join(f"{one['rate']:.0f}" for one in found["rounds"])
    table = markdown(["figure", "predicted", "measured"], rows)
    return f"{table}\n\nThe searches found {rounds} lists/s; their median counts."


def _fleets(costs: Results) -> list[tuple[model.Demand, model.Fleet]]:
    demands = model.powers(LISTS_A_USER, EVENTS_A_LIST, SIZES)
    return [(demand, model.needs(model.Costs(costs), demand, ASSUMED)) for demand in demands]


def fleets(costs: Results) -> str:
    """Draws what each power of ten needs."""
    rows = [
        [f"{demand.users:,.0f}", demand.lists, fleet.answer_cores, fleet.encode_cores, fleet.redis_cores,
         fleet.redis_gib, fleet.primaries, fleet.network_gbit, fleet.redis_gbit,
         model.usd_a_million(fleet, demand, ASSUMED, COMPUTE, MEMORY, LEAST_USD_HOUR)]
        for demand, fleet in _fleets(costs)
    ]  # fmt: skip
    return markdown(
        ["users", "lists/s", "cores that answer", "cores for events", "cores of Redis", "GiB of Redis", "primaries",
         "Gbit/s to callers", "Gbit/s to Redis", "US$ a million lists"],
        rows,
    )  # fmt: skip


def breaks(costs: Results) -> str:
    """Draws what is full first at each power of ten."""
    rows: list[list[Any]] = []
    before: Mapping[str, float] = {}
    for demand, fleet in _fleets(costs):
        now = model.loads(fleet, ASSUMED, UNITS)
        found = [f"{name} ({now[name]:.1f} ×)" for name in model.first_to_break(now, before)]
        fullest = max((name for name in now if now[name] <= 1.0), key=lambda name: now[name], default=None)
        rows.append(
            [
                f"{demand.users:,.0f}",
                "; ".join(found) or "nothing",
                f"{fullest} ({now[fullest]:.0%})" if fullest else None,
            ]
        )
        before = now
    return markdown(["users", "what one of is no longer enough, the fullest first", "the next"], rows)


def sensitivity(costs: Results, scale: Results | None) -> str:
    """Draws what changes with history, catalogue, share of sampled lists and events, all else as in the middle row."""
    measured = model.Costs(costs)
    base = model.needs(measured, _MIDDLE, ASSUMED)

    def line(name: str, demand: model.Demand) -> list[Any]:
        fleet = model.needs(measured, demand, ASSUMED)
        return [name, fleet.answer_cores / base.answer_cores, fleet.redis_gib / base.redis_gib,
                model.usd_a_million(fleet, demand, ASSUMED, COMPUTE, MEMORY, LEAST_USD_HOUR)]  # fmt: skip

    rows = [
        line(f"history of {length} events", replace(_MIDDLE, history=float(length))) for length in (10, 50, 200, 1000)
    ]
    rows += [
        line(f"{share:.0%} of the lists sampled", replace(_MIDDLE, sampled=share)) for share in (0.0, 0.2, 0.5, 1.0)
    ]
    if scale is not None:
        times = {int(size): found["cpu_p50"] for size, found in scale["decode_ms"].items()}
        smallest = times[min(times)]
        rows += [
            line(f"{size:,} items", replace(_MIDDLE, decode_factor=time / smallest)) for size, time in times.items()
        ]
    rows += [
        line(f"{each} events for each list", replace(_MIDDLE, events=each * _MIDDLE.lists)) for each in (0.1, 1, 10)
    ]
    return markdown(
        ["a million users, 10,000 lists/s, but", "cores that answer, ×", "GiB of Redis, ×", "US$ a million lists"], rows
    )


def prices(costs: Results) -> str:
    """Draws the cost of a million lists beside the listed price of a managed service, month by month."""
    rows = []
    for demand, fleet in _fleets(costs):
        month = demand.lists * 3600.0 * HOURS_A_MONTH
        own = model.usd_a_million(fleet, demand, ASSUMED, COMPUTE, MEMORY, LEAST_USD_HOUR)
        rows.append([f"{demand.users:,.0f}", month / 1e6, own, MANAGED.usd_a_million(month)])
    sources = [f"- {one.name}: US$ {one.usd_hour} an hour, {one.cores} virtual cores, {one.gib:g} GiB; {one.source}."
               for one in (COMPUTE, SMALL_COMPUTE, MEMORY, SMALL_MEMORY)]  # fmt: skip
    sources.append(f"- {MANAGED.name}: {MANAGED.source}. {MANAGED.note}")
    table = markdown(
        ["users", "million lists a month", "own machines, US$ a million", f"{MANAGED.name}, US$ a million"], rows
    )
    return "\n".join([table, "", *sources])


def sizes(scale: Results) -> str:
    """Draws the decoder's time by the size of the catalogue, from which the sensitivity takes its factors."""
    rows = [[f"{int(size):,}", found["cpu_p50"]] for size, found in scale["decode_ms"].items()]
    return markdown(["items", "a list of one row, ms of processor time"], rows)


Rows = Sequence[Mapping[str, Any]]


def _of_costs(draw: Callable[[Results], str]) -> Callable[[Rows, Results], str]:
    return lambda _, files: draw(files["capacity_costs"]) if files.get("capacity_costs") else NOT_YET


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "capacity_costs": parts,
    "capacity_checked": checked,
    "scale": sizes,
}
SUMMARY: Mapping[str, Callable[[Rows, Results], str]] = {
    "fleets": _of_costs(fleets),
    "breaks": _of_costs(breaks),
    "prices": _of_costs(prices),
    "sensitivity": lambda _, files: (
        sensitivity(files["capacity_costs"], files.get("scale")) if files.get("capacity_costs") else NOT_YET
    ),
}
