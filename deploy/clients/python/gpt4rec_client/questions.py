"""The calls of the service: what is sent, and how its answer is read. Nothing here touches the network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from gpt4rec_client import answers
from gpt4rec_client.answers import Erased, EventsAnswer, Recommendation, Related
from gpt4rec_client.errors import BadAnswer, ClientError, problem
from gpt4rec_client.events import Event

T = TypeVar("T")
Feature = str | int | float | bool
_SUCCESS = range(200, 300)


class InlineEvent(TypedDict, total=False):
    """An event of the current session, for one answer: `item_id`, `type` (view) and `timestamp` (now)."""

    item_id: str
    type: str
    timestamp: str | int | float


class Decoding(TypedDict, total=False):
    """Replaces the decoding of the segment: `strategy` (beam, top_p, temperature, greedy) and its parameters."""

    strategy: str
    beam_width: int
    top_p: float
    temperature: float


class Question(TypedDict, total=False):
    """What a list is asked for. One of `user_id`, `session_id` and `events` is required.

    Members are those of `POST /recommend`; the service's `/docs` page has every bound.

    Attributes:
        user_id: The user whose stored history the list is made from.
        session_id: The anonymous session whose stored history it is made from.
        events: Events of this session that are not stored, at most 200.
        k: Number of items, 1 to 100; 10 without, or all `candidates`.
        candidates: Ranks these items, at most 500, instead of choosing from the catalogue.
        page: Whether the list can be continued: `next_page` of the client does it.
        cursor: Continues a list; `next_page` names it.
        scene: Where the list is shown.
        context: Control codes of the list.
        filter: Restricts the list to items with a value of each field.
        exclude: Items that must not be listed.
        fields: What is shown of each item: `title`, `price`, `image`, `url` … Without, the title.
        exclude_seen: Whether items of the history stay out; without, the model decides.
        segment: Overrides the segment that the rules would choose.
        decoding: Replaces the decoding of the segment.
        seed: A number makes sampling repeatable, `fresh` draws anew. Without, the list stays until something happens.
        rules: Rules of the list, beside those of the policies.
        policy_rules: Whether the rules of the policies hold.
        diversity: How the items are to differ from each other.
        features: Features of the user, for this answer.
        arm: Puts the answer into arms of experiments, for testers.
        explain: Whether each item says why it is there.
        budget_ms: Time budget of the answer in the service.
        more: Members that this release does not know, as they are sent.
    """

    user_id: str | None
    session_id: str | None
    events: Sequence[InlineEvent]
    k: int
    candidates: Sequence[str] | None
    page: bool
    cursor: str | None
    scene: str | None
    context: Mapping[str, Feature] | None
    filter: Mapping[str, Any] | None
    exclude: Sequence[str]
    fields: Sequence[str] | None
    exclude_seen: bool | None
    segment: str | None
    decoding: Decoding | None
    seed: int | Literal["fresh"] | None
    rules: Sequence[Mapping[str, Any]] | None
    policy_rules: bool
    diversity: Mapping[str, Any] | None
    features: Mapping[str, Feature] | None
    arm: Mapping[str, str] | None
    explain: bool
    budget_ms: float | None
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the service.

    Attributes:
        method: HTTP method.
        path: Path below the base address.
        read: Makes the answer of the parsed body.
        body: What is sent as JSON; None for nothing.
        query: Parameters of the query.
        lines: A body of JSON lines, in place of `body`.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str | int] | None = None
    lines: str | None = None

    def content(self, remaining_s: float) -> bytes | None:
        """Returns the bytes of the body. It never asks the service for more time than the call has left."""
        if self.lines is not None:
            return self.lines.encode()
        if self.body is None:
            return None
        body, budget = self.body, self.body.get("budget_ms")
        if budget is not None:
            body = {**body, "budget_ms": min(budget, remaining_s * 1000.0)}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def answer(self, status: int, content: bytes, retry_after: str | None) -> T:
        """Returns the answer of a response.

        Raises:
            Problem: The status is no success.
            BadAnswer: The body is not what the service promises.
        """
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        if status not in _SUCCESS:
            raise problem(status, document, retry_after)
        try:
            return self.read(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadAnswer(f"{self.method} {self.path}: this is no answer of the service") from error


def headers(api_key: str | None, *, start: bool) -> dict[str, str]:
    """Returns the headers of an attempt that begins now.

    Args:
        api_key: The key of the caller.
        start: Whether to say when it began, so that time on the way counts against the budget.
    """
    found = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key is not None:
        found["Authorization"] = f"Bearer {api_key}"
    if start:
        found["X-Request-Start"] = str(time.time_ns() // 1_000_000)
    return found


def body_of(question: Question, budget_ms: float | None) -> dict[str, Any]:
    """Returns the body of a question: nothing that was left out, and the client's budget where it names none."""
    body = {name: value for name, value in question.items() if value is not None and name != "more"}
    if budget_ms is not None:
        body.setdefault("budget_ms", budget_ms)
    return {**body, **question.get("more", {})}


def recommend(body: Mapping[str, Any], path: str = "/recommend") -> Call[Recommendation]:
    """A list."""
    session_id = body.get("session_id")
    return Call("POST", path, lambda raw: answers.recommendation(raw, session_id), body)


def basket_of(items: Sequence[str], question: Question, budget_ms: float | None) -> dict[str, Any]:
    """Returns the body of a question about a basket."""
    return {**body_of(question, budget_ms), "items": list(items)}


def next_page(before: Recommendation, question: Question, budget_ms: float | None) -> dict[str, Any]:
    """Returns the body that continues a list, for the same subject."""
    subject = {"user_id": before.user_id} if before.user_id is not None else {"session_id": before.session_id}
    named = {name: value for name, value in subject.items() if value is not None}
    return {**body_of(question, budget_ms), **named, "cursor": before.cursor}


def recommend_batch(
    bodies: Sequence[Mapping[str, Any]], budget_ms: float | None
) -> Call[list[Recommendation | ClientError]]:
    """Several lists, each answered or refused by itself."""
    body = {"requests": bodies} if budget_ms is None else {"requests": bodies, "budget_ms": budget_ms}
    return Call("POST", "/recommend/batch", lambda raw: answers.batch(raw, bodies), body)


def send(events: Sequence[Event]) -> Call[EventsAnswer]:
    """Stores events."""
    return Call("POST", "/events", answers.events_answer, {"events": [event.to_json() for event in events]})


def merge(session_id: str, user_id: str) -> Call[int]:
    """Moves an anonymous history to the user who logged in."""
    return Call(
        "POST", "/sessions/merge", lambda raw: int(raw["merged"]), {"session_id": session_id, "user_id": user_id}
    )


def beside(item_id: str, what: Literal["similar", "together"], k: int, fields: Sequence[str]) -> Call[Related]:
    """Items like an item, or those bought together with it."""
    shown: dict[str, str | int] = {"fields": ",".join(fields)} if fields else {}
    return Call("GET", f"/items/{_segment(item_id)}/{what}", answers.related, query={"k": k, **shown})


def show_user(user_id: str) -> Call[dict[str, Any]]:
    """What is stored about a user."""
    return Call("GET", f"/users/{_segment(user_id)}", dict)


def erase(user_id: str) -> Call[Erased]:
    """Deletes everything about a user."""
    return Call("DELETE", f"/users/{_segment(user_id)}", answers.erased)


def put_features(kind: str, subject_id: str, features: Mapping[str, Feature]) -> Call[dict[str, Any]]:
    """Stores the features of a user or a session."""
    return Call("PUT", f"/{kind}s/{_segment(subject_id)}/features", dict, {"features": dict(features)})


def _segment(subject_id: str) -> str:
    """Returns an id as one segment of a path: a slash in it is no slash of the path."""
    return quote(subject_id, safe="")
