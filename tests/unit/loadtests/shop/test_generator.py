"""DPO and GRPO on a generator, in their short form."""

from __future__ import annotations

from loadtests.shop.generator import measure
from loadtests.simulator.world import Shape
from model.slate.generator_objectives import Settings


def test_each_objective_is_measured_against_the_network_before() -> None:
    tastes = Shape(users=40, items=60, categories=4, groups=3, base=-2.5)
    found = measure(tastes, past=5, lists=2, epochs=1, settings=Settings(epochs=1, batch=20))
    assert set(found) == {"before", "dpo", "grpo", "likelihood"}
    assert found["before"] > 0 and all(0.3 < found[name] < 3.0 for name in ("dpo", "grpo", "likelihood"))
