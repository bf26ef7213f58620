"""What a sender notes of a run, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtests.common.hdr import Latencies
from loadtests.load.arrivals import Answer, Arrival, Record
from loadtests.load.run_figures import LATE_SEND_MS, Report


class Outcomes:
    """The outcome of every request of a run, by its number; a sender fills it in.

    Attributes:
        arrivals: The requests.
        paced: Whether requests are sent when they are due, or when an answer has come.
        connections: Connections of the sender.
        due: Seconds from the start at which each request was due; shorter than `arrivals` if the run was cut off.
        lag: Seconds from due to sent.
        latency: Seconds from due to answered.
        status: HTTP status, or how the request failed; 0 while it is open.
        rung: Rung of each list.
        reason: Reason of each list.
        own_ms: Latency that the service reported, as its text.
        began: Start of the run, of `time.perf_counter`.
        took: Seconds of the run.
        cpu: Processor seconds of the generator.
        waited: Requests that waited for a free connection.
        most_open: Most open requests at once.
    """

    def __init__(self, arrivals: Sequence[Arrival], *, paced: bool, connections: int) -> None:
        n = len(arrivals)
        self.arrivals, self.paced, self.connections = arrivals, paced, connections
        self.due = [arrival.due_s for arrival in arrivals]
        self.lag = [0.0] * n
        self.latency = [0.0] * n
        self.status: list[int | str] = [0] * n
        self.rung: list[bytes | None] = [None] * n
        self.reason: list[bytes | None] = [None] * n
        self.own_ms: list[bytes | None] = [None] * n
        self.began = self.took = self.cpu = 0.0
        self.waited = self.most_open = 0

    def report(self, warmup_s: float, skip: int = 0) -> Report:
        """Returns the figures; requests due before `warmup_s` and the first `skip` count only if they failed."""
        kept = [n for n, arrival in enumerate(self.arrivals) if n >= skip and arrival.due_s >= warmup_s]
        if not self.paced:
            kept = list(range(skip, len(self.due)))
        names = [a.label or a.path for a in self.arrivals]
        errors = Counter(f"{names[n]} {s}" for n, s in enumerate(self.status[: len(self.due)]) if s != 200)
        good = [n for n in kept if self.status[n] == 200]
        start = self.due[kept[0]] if kept and not self.paced else warmup_s
        span = max(1e-9, self.took - start)
        sending = max(1e-9, (self.due[-1] if self.due else 0.0) - start)
        lag_ms = [self.lag[n] * 1e3 for n in kept]
        return Report(
            offered_rate=len(kept) / (sending if self.paced else span),
            answered_rate=len(good) / span,
            seconds=span,
            requests=len(kept),
            errors=dict(errors.most_common()),
            routes=self._by(good, names),
            rungs=self._by(good, [None if r is None else r.decode() for r in self.rung]),
            reasons=dict(Counter(r.decode() for n in good if (r := self.reason[n]) is not None)),
            send_lag=Latencies(lag_ms),
            late_share=sum(lag > LATE_SEND_MS for lag in lag_ms) / max(1, len(kept)),
            waited_share=self.waited / max(1, len(self.due)),
            most_open=self.most_open,
            cpu_share=self.cpu / max(1e-9, self.took),
            cpu_us=self.cpu / max(1, len(self.due)) * 1e6,
            connections=self.connections,
            warmup_s=warmup_s,
        )

    def fill(self, record: Record) -> None:
        """Adds every request of the run to a record, in order of due time, the warm-up included."""
        record.began = self.began
        for n, arrival in enumerate(self.arrivals[: len(self.due)]):
            status, rung, reason, own = self.status[n], self.rung[n], self.reason[n], self.own_ms[n]
            record.answers.append(
                Answer(
                    arrival.label or arrival.path,
                    self.due[n],
                    self.latency[n] if isinstance(status, int) else None,
                    status,
                    None if rung is None else rung.decode(),
                    None if reason is None else reason.decode(),
                    None if own is None else float(own),
                )
            )

    def _by(self, good: Sequence[int], names: Sequence[str | None]) -> dict[str, Latencies]:
        parted: dict[str, list[float]] = {}
        for n in good:
            if (name := names[n]) is not None:
                parted.setdefault(name, []).append(self.latency[n] * 1e3)
        return {name: Latencies(values) for name, values in sorted(parted.items())}
