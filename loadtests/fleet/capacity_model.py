"""From measured costs to what a fleet needs, and to what breaks first. Pure.

Everything here is arithmetic over `capacity_costs.json`; what is assumed beside it is a field of `Assumptions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests.fleet.prices import Instance
from loadtests.fleet.queueing import ListCosts

_GIB = float(1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked of a fleet at its busiest.

    Attributes:
        users: Users whose history is stored.
        lists: Lists a second.
        events: Events a second.
        history: Mean events of a stored history.
        sampled: Share of the lists that are drawn.
        decode_factor: Decoder time of a list ÷ that on the measured catalogue; it stands for the size of the catalogue.
    """

    users: float
    lists: float
    events: float
    history: float = 50.0
    sampled: float = 0.2
    decode_factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What no figure says.

    Attributes:
        utilisation: Share of a core that is planned for at the peak: what is left keeps p99 low and takes over when a
            zone fails.
        batch: Rows of a decoder's run at that utilisation.
        redis_utilisation: The same for the core of a Redis primary.
        replicas: Copies of each Redis primary.
        redis_overhead: Memory of Redis ÷ the bytes of its keys: tables of keys, fragmentation, and room for a copy of
            pages while it writes to disk.
        primary_gib: Memory of one primary.
        events_a_request: Events that a frontend sends at once.
        poll_s: How often each process reads the shared values.
        connections: Connections of each process to each primary.
        max_clients: Connections that a primary accepts (the default of Redis).
    """

    utilisation: float = 0.6
    batch: float = 4.0
    redis_utilisation: float = 0.6
    replicas: int = 1
    redis_overhead: float = 1.5
    primary_gib: float = 25.0
    events_a_request: int = 1
    poll_s: float = 0.5
    connections: int = 8
    max_clients: int = 10_000


@dataclass(frozen=True, slots=True)
class Costs:
    """The measured costs in the form that is reckoned with; microseconds and bytes."""

    payload: Mapping[str, Any]

    def decoder(self, kind: str = "beam") -> tuple[float, float]:
        """Returns microseconds of a run and of each of its rows: the straight line through the measured batches."""
        measured = self.payload["decoder"][kind]
        rows = np.array([float(size) for size in measured])
        times = np.array(list(measured.values()), float)
        # Relative errors count: a batch of one is as important as one of 32.
        design = np.stack([np.ones_like(rows), rows], axis=1) / times[:, None]
        run, row = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0]
        return max(0.0, float(run)), float(row)

    def of_lists(self, decode_factor: float = 1.0, sampled: float = 0.0) -> ListCosts:
        """Returns the parts of a list, from the costs by requests in flight.

        What the service took beside the decoder is split into a part for each list and one for each run, by the
        straight line over runs a list.
        """
        run, row = self.decoder()
        drawn_run, drawn_row = self.decoder("sampled")
        runs, beside, stores, senders = [], [], [], []
        for one in self.payload["lists"].values():
            runs.append(1.0 / one["batch"])
            beside.append(one["service"] - row - run / one["batch"])
            stores.append(one["store"])
            senders.append(one["sender"])
        turns, main = np.polyfit(runs, beside, 1)
        mean = decode_factor * (1.0 - sampled), decode_factor * sampled
        return ListCosts(
            sender=min(senders),
            main=float(main),
            turns=max(0.0, float(turns)),
            store=min(stores),
            run=mean[0] * run + mean[1] * drawn_run,
            row=mean[0] * row + mean[1] * drawn_row,
            shared=self.payload["shared"],
        )

    def of_event(self, at_once: int) -> tuple[float, float]:
        """Returns what an event takes of the service, encoding included, and of Redis."""
        (few, one), (many, other) = sorted((float(size), costs) for size, costs in self.payload["events"].items())
        share = (1.0 / at_once - 1.0 / many) / (1.0 / few - 1.0 / many)
        service, store = (other[part] + share * (one[part] - other[part]) for part in ("service", "store"))
        return service, store

    def user_bytes(self, history: float) -> float:
        """Returns bytes of Redis for a user with so many events: between and beyond the measured lengths, linear."""
        measured = sorted((float(length), found["all"]) for length, found in self.payload["user_bytes"].items())
        lengths, sizes = zip(*measured, strict=True)
        if history <= lengths[-1]:
            return float(np.interp(history, lengths, sizes))
        slope = (sizes[-1] - sizes[-2]) / (lengths[-1] - lengths[-2])
        return float(sizes[-1] + slope * (history - lengths[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a demand needs.

    Attributes:
        answer_cores: Cores of the processes that answer.
        encode_cores: Cores that take in and encode events.
        redis_cores: Cores of Redis primaries in use.
        redis_gib: Memory of all primaries together.
        primaries: Primaries that follow from memory and cores.
        network_gbit: Between callers and service.
        redis_gbit: Between service and Redis.
        processes: Worker processes, one for each planned core.
        polls_cores: Cores of the one primary that the processes read the shared values from.
    """

    answer_cores: float
    encode_cores: float
    redis_cores: float
    redis_gib: float
    primaries: int
    network_gbit: float
    redis_gbit: float
    processes: int
    polls_cores: float


def needs(costs: Costs, demand: Demand, assumed: Assumptions) -> Fleet:
    """Returns what a demand needs."""
    of_list = costs.of_lists(demand.decode_factor, demand.sampled)
    event, event_store = costs.of_event(assumed.events_a_request)
    answer = demand.lists * 1e-6 * (of_list.of_list(assumed.batch) - of_list.store) * of_list.shared
    encode = demand.events * 1e-6 * event * of_list.shared
    answer_cores, encode_cores = answer / assumed.utilisation, encode / assumed.utilisation
    processes = max(1, math.ceil(answer_cores + encode_cores))
    redis_cores = 1e-6 * (demand.lists * of_list.store + demand.events * event_store)
    gib = demand.users * costs.user_bytes(demand.history) * assumed.redis_overhead / _GIB
    primaries = max(1, math.ceil(gib / assumed.primary_gib), math.ceil(redis_cores / assumed.redis_utilisation))
    wire = costs.payload["wire"]
    return Fleet(
        answer_cores=answer_cores,
        encode_cores=encode_cores,
        redis_cores=redis_cores,
        redis_gib=gib,
        primaries=primaries,
        network_gbit=8e-9 * (demand.lists * (wire["request"] + wire["answer"]) + demand.events * wire["request"]),
        redis_gbit=8e-9 * (demand.lists + demand.events) * wire["store"],
        processes=processes,
        polls_cores=1e-6 * processes / assumed.poll_s * of_list.store,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The sizes at which a fleet has to be built differently: one of each before, several after."""

    machine_cores: int
    machine_gbit: float


def loads(fleet: Fleet, assumed: Assumptions, units: Units) -> dict[str, float]:
    """Returns how full each single unit would be: what is above 1 needs more than one of it."""
    cores = fleet.answer_cores + fleet.encode_cores
    return {
        "one worker process": cores,
        "one machine of the service": cores / units.machine_cores,
        "the core of one Redis": fleet.redis_cores / assumed.redis_utilisation,
        "the memory of one Redis": fleet.redis_gib / assumed.primary_gib,
        "the network of one machine": (fleet.network_gbit + fleet.redis_gbit) / units.machine_gbit,
        "connections of one Redis": fleet.processes * assumed.connections / assumed.max_clients,
        # They lie in one slot of a cluster, so more primaries do not help. A read is taken to cost what a list's does.
        "reads of the shared values": fleet.polls_cores / assumed.redis_utilisation,
    }


def first_to_break(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """Returns the units that are full now and were not before, the fullest first."""
    return sorted(
        (name for name, load in now.items() if load > 1.0 >= before.get(name, 0.0)), key=lambda name: -now[name]
    )


def usd_a_million(
    fleet: Fleet, demand: Demand, assumed: Assumptions, compute: Instance, memory: Instance, least_usd_hour: float = 0.0
) -> float:
    """Returns what a million lists cost in machines that are rented all the time, while the demand is at its peak.

    Args:
        fleet: What the demand needs.
        demand: The demand.
        assumed: What the fleet was planned with.
        compute: The machine that is rented for cores; shares of it can be had as smaller ones at the same price a core.
        memory: The machine that is rented for Redis.
        least_usd_hour: The least that is paid, whatever the demand.
    """
    machines = (fleet.answer_cores + fleet.encode_cores) / compute.cores * compute.usd_hour
    copies = 1 + assumed.replicas
    gib = copies * fleet.redis_gib / memory.gib
    cores = copies * fleet.redis_cores / assumed.redis_utilisation / memory.cores
    usd_hour = max(least_usd_hour, machines + max(gib, cores) * memory.usd_hour)
    return usd_hour / (demand.lists * 3600.0) * 1e6


def powers(lists_a_user: float, events_a_list: float, sizes: Sequence[float]) -> list[Demand]:
    """Returns demands for so many users each, all else in proportion."""
    return [Demand(users=n, lists=n * lists_a_user, events=n * lists_a_user * events_a_list) for n in sizes]
