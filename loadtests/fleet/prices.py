"""Listed prices, each with its source and date. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass

HOURS_A_MONTH = 730.0
_EC2 = (
    "aws/karpenter-provider-aws, pkg/providers/pricing/zz_generated.pricing_aws.go at commit "
    "031e72b6099630e960dacb88b48a7e9bb780945f, which was generated from the price list of AWS on 2026-01-19 "
    "(us-east-1, on demand, Linux)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A machine that is rented by the hour.

    Attributes:
        name: As its vendor calls it.
        usd_hour: Listed price.
        cores: Virtual processors.
        gib: Memory.
        gbit: Network, as its vendor states it for the sustained rate.
        source: Where the price was read, and its date.
    """

    name: str
    usd_hour: float
    cores: int
    gib: float
    gbit: float
    source: str = _EC2


# A core for the service, and memory for Redis: AMD EPYC as the measuring machine, and Graviton with 8 GiB a core.
COMPUTE = Instance(name="c7a.8xlarge", usd_hour=1.64224, cores=32, gib=64.0, gbit=12.5)
MEMORY = Instance(name="r7g.4xlarge", usd_hour=0.8568, cores=16, gib=128.0, gbit=7.5)
# The least that anybody runs: two of the smallest for the service, and two for Redis and its replica.
SMALL_COMPUTE = Instance(name="c7a.large", usd_hour=0.10264, cores=2, gib=4.0, gbit=0.781)
SMALL_MEMORY = Instance(name="r7g.large", usd_hour=0.1071, cores=2, gib=16.0, gbit=0.937)
LEAST_USD_HOUR = 2 * SMALL_COMPUTE.usd_hour + 2 * SMALL_MEMORY.usd_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """The listed price of a managed service of recommendations.

    Attributes:
        name: As its vendor calls it.
        steps: (lists up to here in a month, US$ for 1,000 of them), ascending; the last has no end.
        note: What the price leaves out.
        source: Where the price was read, and its date.
    """

    name: str
    steps: tuple[tuple[float, float], ...]
    note: str
    source: str

    def usd_a_million(self, lists_a_month: float) -> float:
        """Returns the price of a million lists where so many are asked for in a month."""
        total = before = 0.0
        for until, usd in self.steps:
            total += max(0.0, min(lists_a_month, until) - before) / 1000.0 * usd
            before = until
        return total / lists_a_month * 1e6


MANAGED = Managed(
    name="Google Recommendations AI",
    steps=((20e6, 0.27), (300e6, 0.18), (float("inf"), 0.10)),
    note="The page calls these prices those of a beta. Training and tuning cost US$ 2.50 for a node and hour more; "
    "events and the catalogue cost nothing.",
    source="cloud.google.com/recommendations-ai/pricing, an undated stored copy, read on 2026-11-30",
)
