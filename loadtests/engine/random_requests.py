"""Random requests, events, features, policies and experiments of a small world: few users, and many repeats."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.common.deadline import Clock
from service.experiments.document import Document, ExperimentSpec
from service.lifecycle.served_model import ServedModel
from service.policies.policies import Policies
from service.policies.policies import parse as policies_of

_USERS, _SESSIONS, _ITEMS = 4, 2, 40
# Each part of a request, and how often it is there.
_SHARE = 0.2


class Requests:
    """Draws them.

    Args:
        model: Has the items, their categories and the features.
        rng: Draws.
        clock: Epoch seconds.
    """

    def __init__(self, model: ServedModel, rng: random.Random, clock: Clock) -> None:
        catalogue, self._context = model.catalogue, model.vocabulary.context
        count = min(_ITEMS, len(catalogue.item_ids))
        self._items = [catalogue.item_ids[n] for n in range(count)]
        self._categories = sorted({level for n in range(count) for level in catalogue.items[n].category})
        self._rng, self._clock = rng, clock

    def user(self) -> str:
        """Returns the id of a user."""
        return f"u{self._rng.randrange(_USERS)}"

    def session(self) -> str:
        """Returns the id of a session."""
        return f"s{self._rng.randrange(_SESSIONS)}"

    def item(self) -> str:
        """Returns the id of an item."""
        return self._rng.choice(self._items)

    def features(self) -> dict[str, Any]:
        """Returns features that the model may know; none is a possibility too."""
        known = {name: sorted(self._context.values.get(name, {"x": 0})) for name in self._context.fields}
        return {name: self._rng.choice(values) for name, values in known.items() if self._rng.random() < 0.5}

    def event(self) -> dict[str, Any]:
        """Returns an event of this moment or of the last hours."""
        whose = {"user_id": self.user()} if self._rng.random() < 0.8 else {"session_id": self.session()}
        ago = self._rng.choice((0.0, 0.0, 5.0, 7_000.0))
        return {**whose, "item_id": self.item(), "type": self._rng.choice(("view", "click", "purchase")),
                "timestamp": int((self._clock() - ago) * 1000.0)}  # fmt: skip

    def any(self) -> Mapping[str, Any]:
        """Returns the body of a request for a list."""
        rng = self._rng
        body: dict[str, Any] = {"user_id": self.user()} if rng.random() < 0.8 else {"session_id": self.session()}
        body["k"] = rng.choice((5, 10))
        parts: dict[str, Any] = {
            "decoding": rng.choice(
                ({"strategy": "beam"}, {"strategy": "greedy"}, {"strategy": "temperature"}, {"strategy": "top_p"})
            ),
            "seed": rng.choice((1, 2, "fresh")),
            "filter": self._where(),
            "exclude": rng.sample(self._items, 2),
            "exclude_seen": rng.random() < 0.5,
            "scene": "home",
            "context": {"category": rng.choice(self._categories)},
            "features": self.features(),
            "rules": [self._rule("asked")],
            "policy_rules": rng.random() < 0.5,
            "diversity": {"method": "mmr", "weight": 0.3},
            "segment": "some",
            "fields": ["title", "category"],
            "page": True,
            "explain": True,
            "candidates": rng.sample(self._items, 8),
            "events": [{"item_id": self.item()}],
        }
        return body | {name: value for name, value in parts.items() if rng.random() < _SHARE / (1 + len(body) / 4)}

    def policies(self) -> Policies:
        """Returns policies whose segments, rules and draws depend on time in several ways."""
        rng = self._rng
        some: dict[str, Any] = {"name": "some", "decoding": {"strategy": rng.choice(("beam", "greedy"))}}
        parts: dict[str, Any] = {
            "when": {"max_recency_s": rng.choice((30.0, 600.0, 50_000.0))},
            "explore": {"share": 0.5, "decoding": {"strategy": "temperature", "temperature": 1.5}},
            "rules": [self._rule("own")],
            "diversity": {"method": "dpp", "weight": 0.2},
            "order": "off",
        }
        some |= {name: value for name, value in parts.items() if rng.random() < 0.4}
        rest = {"name": "rest", "decoding": {"strategy": rng.choice(("beam", "temperature"))}}
        of_all = {"rules": [self._rule("all")]} if rng.random() < 0.5 else {}
        return policies_of({"segments": [some, rest], "default": "rest", **of_all})

    def experiments(self) -> Document:
        """Returns a document with one experiment of other policies, or with none."""
        if self._rng.random() < 0.4:
            return Document()
        other = self.policies().model_dump(exclude_none=True)
        arms = [{"name": "now", "share": 0.5}, {"name": "other", "share": 0.5, "policies": other}]
        spec = ExperimentSpec.model_validate({"name": "which", "arms": arms, "salt": self._rng.choice("abc")})
        return Document().started(spec, int(self._clock() * 1000.0))

    def _where(self) -> dict[str, list[str]]:
        return {"category": [self._rng.choice(self._categories)]}

    def _rule(self, name: str) -> dict[str, Any]:
        """A rule; some begin or cease to hold soon, and some hold for a share of the lists."""
        rng = self._rng
        kinds: tuple[dict[str, Any], ...] = (
            {"kind": "boost", "where": self._where(), "times": 20.0},
            {"kind": "at_most", "n": 2, "each": "category"},
            {"kind": "at_least", "n": 2, "where": self._where()},
            {"kind": "pin", "item": self.item(), "position": 2},
        )
        when: dict[str, Any] = {"valid_from": self._soon(), "valid_until": self._soon(100_000.0), "share": 0.5}
        return {"name": name, **rng.choice(kinds), **{key: on for key, on in when.items() if rng.random() < 0.3}}

    def _soon(self, later: float = 0.0) -> str:
        moment = self._clock() + later + self._rng.choice((-60.0, 10.0, 300.0, 3_000.0))
        return datetime.fromtimestamp(moment, UTC).isoformat()
