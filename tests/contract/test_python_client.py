"""The Python client against a service that runs as a process of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from gpt4rec_client import (
    AsyncClient,
    Client,
    Conflict,
    Event,
    Forbidden,
    Gone,
    InvalidRequest,
    ItemLine,
    NotFound,
    Question,
    Recommendation,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)

from tests.support.client_service import OPERATOR_KEY, PAGE_KEY, RATED_KEY, client_service
from tests.support.processes import Serve

_PATIENCE_S = 30.0


class _Dropped(list[tuple[Sequence[Event], str]]):
    def __call__(self, events: Sequence[Event], why: str) -> None:
        self.append((events, why))


class _Breaks(httpx.HTTPTransport):
    """The network between, which breaks before or after the service has answered."""

    before = after = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.before:
            self.before -= 1
            raise httpx.ConnectError("nobody is there", request=request)
        response = super().handle_request(request)
        if self.after:
            self.after -= 1
            response.close()
            raise httpx.ReadError("the connection broke", request=request)
        return response


@pytest.fixture(scope="module")
def service(random_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with client_service(random_artifact, tmp_path_factory.mktemp("service")) as running:
        yield running


def connected(service: Serve, *, transport: httpx.BaseTransport | None = None, **options: Any) -> Client:
    """A client with the rights of an operator, and patience for a busy test machine."""
    patient = {"api_key": OPERATOR_KEY, "timeout_s": _PATIENCE_S, "interval_s": 0.0, "close_timeout_s": _PATIENCE_S}
    return Client(f"http://127.0.0.1:{service.port}", transport=transport, **{**patient, **options})


def _until(holds: Callable[[], bool]) -> None:
    """Waits for what replicas learn of each other."""
    until = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def history(client: Client, user_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.user(user_id)["history"]
    return found


def test_a_click_on_a_list_is_known_to_the_next_one_and_to_the_user_who_logs_in(service: Serve) -> None:
    with connected(service) as client:
        first = client.recommend(session_id="visit/1", k=5)
        assert (len(first.items), first.local, first.session_id) == (5, False, "visit/1")
        clicked = first.item_ids[0]
        click = first.event("click", clicked)
        assert (click.list_id, click.session_id, click.user_id) == (first.list_id, "visit/1", None)
        assert client.track(click)
        assert client.flush(_PATIENCE_S) == 0
        assert clicked not in client.recommend(session_id="visit/1", k=5, exclude_seen=True).item_ids
        assert client.merge("visit/1", "ann/2") == 1
        kept = history(client, "ann/2")
        assert [(one["item_id"], one["type"], one["event_id"]) for one in kept] == [(clicked, "click", click.event_id)]
        assert clicked not in client.recommend(user_id="ann/2", k=5, exclude_seen=True).item_ids
        assert client.similar(clicked, k=3).item_id == clicked
        assert client.put_user_features("ann/2", {"age": "old"})["features"] == {"age": "old"}
        assert client.erase("ann/2").deleted > 0
        with pytest.raises(NotFound):
            client.user("ann/2")


def test_an_event_whose_answer_was_lost_counts_once(service: Serve) -> None:
    network = _Breaks()
    with connected(service, transport=network, retries=1) as client:
        event = Event(type="click", item_id="i3", user_id="twice")
        network.after = 1
        assert (client.send([event]).accepted, client.send([event]).duplicates) == (0, 1)
        network.after = 2  # every try of the first batch: the event goes back into the queue
        client.track(Event(type="cart", item_id="i4", user_id="twice"))
        client.flush(_PATIENCE_S)
        assert [one["item_id"] for one in history(client, "twice")] == ["i3", "i4"]


def test_what_waits_of_a_session_counts_once_as_the_users(service: Serve) -> None:
    network = _Breaks()
    with connected(service, transport=network, retries=0, timeout_s=5.0) as client:
        event = Event(type="click", item_id="i7", session_id="s-late")
        assert client.send([event]).accepted == 1
        network.before = 1  # what was stored is sent again, and the merge comes first
        client.track(event)
        client.track(Event(type="click", item_id="i8", session_id="s-late"))
        client.merge("s-late", "late")
        assert client.flush(_PATIENCE_S) == 0
        assert [one["item_id"] for one in history(client, "late")] == ["i7", "i8"]


def test_an_invalid_event_is_handed_back_and_the_others_arrive(service: Serve) -> None:
    dropped = _Dropped()
    with connected(service, on_drop=dropped, interval_s=60.0, batch=3) as client:
        for item in ("i5", "", "i6"):
            client.track(Event(type="view", item_id=item, user_id="mixed"))
        assert client.flush(_PATIENCE_S) == 0
        assert [one["item_id"] for one in history(client, "mixed")] == ["i5", "i6"]
    ((events, why),) = dropped
    assert [event.item_id for event in events] == [""]
    assert "events.1.item_id" in why


def test_problem_documents_are_typed_errors(service: Serve) -> None:
    with connected(service) as client, pytest.raises(InvalidRequest) as wrong:
        client.recommend(user_id="u", k=1000)
    assert (wrong.value.status, wrong.value.reason, wrong.value.faults[0].loc) == (422, "invalid_request", ("k",))
    assert wrong.value.request_id
    with connected(service, api_key=None) as client, pytest.raises(Unauthorized):
        client.send([Event(type="view", item_id="i1", user_id="u")])
    with connected(service, api_key=PAGE_KEY) as client, pytest.raises(Forbidden):
        client.erase("u")
    with connected(service, prefix="/v0") as client, pytest.raises(NotFound):
        client.similar("i1")


def test_above_the_rate_the_last_good_list_is_shown_and_marked(service: Serve) -> None:
    with connected(service, api_key=RATED_KEY, timeout_s=5.0) as client:
        good = client.recommend(user_id="rated", k=3)
        for _ in range(4):
            client.similar("i1")
        local = client.recommend(user_id="rated", k=2)
        with pytest.raises(TooManyRequests) as refused:
            client.similar("i1")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1.0
    assert (local.local, local.source, local.reason) == (True, "local", "too_many_requests")
    assert (local.item_ids, local.list_id) == (good.item_ids[:2], None)


def test_without_a_service_the_configured_list_is_shown_but_never_what_was_excluded_or_filtered(service: Serve) -> None:
    network = _Breaks()
    options: dict[str, Any] = {"transport": network, "retries": 0, "fallback": ["9", "8", "9", "7"]}
    with connected(service, **options) as client:
        good = client.recommend(user_id="away", k=2)
        network.before = 100
        assert client.recommend(user_id="away", k=2, exclude=[good.item_ids[0]]).item_ids == good.item_ids[1:]
        other = client.recommend(user_id="other", k=2, exclude=["9"])
        assert (other.item_ids, other.reason, other.degraded) == (["8", "7"], "unreachable", True)
        assert isinstance(other.error, Unreachable)
        with pytest.raises(Unreachable):
            client.recommend(user_id="other", filter={"category": ["a"]})
        with pytest.raises(Unreachable):
            client.erase("away")  # what is remembered here is gone all the same
        assert client.recommend(user_id="away", k=1).item_ids == ["9"]


def test_several_lists_come_at_once_each_answered_or_refused_by_itself(service: Serve) -> None:
    network = _Breaks()
    with connected(service, transport=network, retries=0) as client:
        asked: list[Question] = [
            {"user_id": "batch", "k": 2},
            {"user_id": "batch", "k": 0},
            {"session_id": "batch", "candidates": ["i3", "i1", "i2"], "seed": "fresh"},
        ]
        one, two, three = client.recommend_batch(asked)
        assert isinstance(one, Recommendation)
        assert isinstance(two, InvalidRequest)
        assert isinstance(three, Recommendation)
        assert (len(one.items), one.user_id, three.session_id) == (2, "batch", "batch")
        assert sorted(three.item_ids) == ["i1", "i2", "i3"]
        network.before = 3
        again = client.recommend_batch([*asked, {"session_id": "s", "candidates": ["i9", "i8"], "exclude": ["i9"]}])
        assert [getattr(one, "reason", None) for one in again] == ["unreachable", None, "unreachable", "unreachable"]
        assert isinstance(again[1], Unreachable)
        assert isinstance(again[3], Recommendation)
        assert again[3].item_ids == ["i8"], "items that are named stand in their own order"


def test_a_list_has_pages_without_a_repeat_until_its_user_is_erased(service: Serve) -> None:
    with connected(service) as client:
        client.send([Event(type="view", item_id="i1", user_id="pages")])
        first = client.recommend(user_id="pages", k=15, page=True, exclude_seen=False)
        page: Recommendation | None = first
        shown = []
        while page is not None:
            shown.extend(page.item_ids)
            page = client.next_page(page, k=15)
        assert len(shown) == len(set(shown)) == 40
        client.erase("pages")
        with pytest.raises(Gone):
            client.next_page(first)


def test_the_catalogue_is_changed_shown_searched_and_imported(service: Serve) -> None:
    with connected(service) as client:
        items = client.items
        made = items.put("shoe/1", {"title": "Blue running shoe", "price": 49.5, "currency": "EUR", "like": ["i1"]})
        assert (made.outcome, made.item_id) == ("created", "shoe/1")
        changed = items.patch("shoe/1", {"stock": 3}, if_version=made.version)
        with pytest.raises(Conflict):
            items.patch("shoe/1", {"stock": 4}, if_version=made.version)
        shown = items.get("shoe/1")
        assert (shown.fields["stock"], shown.fields["price"], shown.version) == (3, 49.5, changed.version)
        _until(lambda: [one.item_id for one in items.search("blu runing")][:1] == ["shoe/1"])
        assert items.disable("shoe/1").disabled
        _until(lambda: not items.get("shoe/1").listed)
        assert not items.enable("shoe/1").disabled
        lines: list[ItemLine] = [
            {"item_id": "shoe/2", "title": "Red shoe"},
            {"item_id": "shoe/3", "price": -1.0},
            {"item_id": "shoe/1", "op": "delete"},
        ]
        report = items.import_lines(lines)
        assert [(one.line, one.outcome) for one in report] == [(1, "created"), (2, "refused"), (3, "deleted")]
        assert report[1].error
        _until(lambda: items.page().items[0].item_id == "shoe/2")
        first = items.page(limit=30)
        second = items.page(first.cursor, limit=30)
        found = [one.item_id for one in (*first.items, *second.items)]
        assert sorted(set(found)) == sorted(found)
        assert {f"i{n}" for n in range(40)} <= set(found)
        assert second.cursor is None
        items.delete("shoe/2")
        with pytest.raises(NotFound):
            items.get("shoe/2")


def test_what_goes_with_an_item_and_with_a_basket_is_never_in_it(service: Serve) -> None:
    network = _Breaks()
    with connected(service, transport=network, retries=0, fallback=["i1", "i2", "i3"]) as client:
        assert len(client.together("i1", k=3).items) == 3
        answer = client.recommend_for_basket(["i1", "i4"], session_id="basket", k=3)
        assert (len(answer.items), answer.session_id) == (3, "basket")
        assert not {"i1", "i4"} & set(answer.item_ids)
        network.before = 1
        assert client.recommend_for_basket(["i1"], k=5).item_ids == ["i2", "i3"]


def test_items_have_the_fields_that_were_asked_for(service: Serve) -> None:
    with connected(service) as client:
        (item,) = client.recommend(user_id="fields", k=1, fields=["brand", "category"]).items
        assert item.title is None
        assert item.brand in ("x", "y")
        assert item.raw["category"]
        (like,) = client.similar("i1", k=1, fields=["title", "brand"]).items
        assert (like.title is not None, like.brand in ("x", "y")) == (True, True)
        assert client.together("i1", k=1, fields=["brand"]).items[0].brand in ("x", "y")
        assert client.recommend_for_basket(["i1"], k=1, fields=["brand"]).items[0].brand in ("x", "y")


def test_rules_of_a_question_are_reported(service: Serve) -> None:
    with connected(service) as client:
        rules = [{"name": "top", "kind": "pin", "item": "i5", "position": 1}]
        answer = client.recommend(user_id="ruled", k=3, rules=rules, exclude_seen=False)
        assert (answer.item_ids[0], set(answer.rules)) == ("i5", {"top"})


def test_a_call_ends_with_its_time_and_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Client(address, timeout_s=0.02) as client, pytest.raises(TimedOut):
            client.similar("i1")


def test_the_async_client_does_the_same(service: Serve) -> None:
    dropped = _Dropped()

    async def visit() -> None:
        address = f"http://127.0.0.1:{service.port}"
        async with AsyncClient(
            address, api_key=OPERATOR_KEY, timeout_s=_PATIENCE_S, interval_s=60.0, on_drop=dropped, close_timeout_s=30.0
        ) as client:
            answer = await client.recommend(session_id="async", k=3)
            client.track(answer.event("click", answer.item_ids[0]))
            client.track(Event(type="view", item_id="", session_id="async"))
            assert await client.merge("async", "async-user") == 1
            assert [one["item_id"] for one in (await client.user("async-user"))["history"]] == answer.item_ids[:1]
            with pytest.raises(InvalidRequest):
                await client.similar("i1", k=0)
            client.track(Event(type="view", item_id="i2", user_id="async-user"))  # sent when the client is closed
        async with AsyncClient(address, api_key=OPERATOR_KEY, timeout_s=_PATIENCE_S) as client:
            assert len((await client.user("async-user"))["history"]) == 2
            assert (await client.similar("i1", k=2)).source == "item_cf"
            assert (await client.items.put("async/1", {"title": "An item"})).outcome == "created"
            lines: list[ItemLine] = [{"item_id": "async/1", "op": "delete"}]
            assert [one.outcome for one in await client.items.import_lines(lines)] == ["deleted"]
            assert (await client.erase("async-user")).user_id == "async-user"

    asyncio.run(visit())
    assert [why for _, why in dropped if "events.1.item_id" in why] == [why for _, why in dropped]


def test_the_async_client_falls_back_and_gives_up_in_time() -> None:
    async def ask(port: int) -> None:
        client = AsyncClient(f"http://127.0.0.1:{port}", timeout_s=0.02, fallback=["1"], close_timeout_s=0.0)
        answer = await client.recommend(user_id="u", k=5)
        assert (answer.item_ids, answer.reason) == (["1"], "timed_out")
        with pytest.raises(TimedOut):
            await client.similar("i1")
        client.track(Event(type="view", item_id="i1", user_id="u"))
        assert await client.flush(0.0) == 1
        await client.close()

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        asyncio.run(ask(deaf.getsockname()[1]))


def test_a_client_that_is_closed_without_its_service_hands_back_what_waited() -> None:
    dropped = _Dropped()
    client = Client("http://127.0.0.1:1", on_drop=dropped, close_timeout_s=0.0, retries=0)
    client.track(Event(type="view", item_id="i1", user_id="u"))
    assert client.close() == 1
    assert sum(len(events) for events, _ in dropped) == 1
    with pytest.raises(RuntimeError):
        client.track(Event(type="view", item_id="i1", user_id="u"))


def test_a_space_is_part_of_every_address() -> None:
    paths: list[str] = []

    def answered(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(200, json={"items": [], "source": "popular", "rung": "popular"})

    for more in ({"space": "shoes"}, {"space": "a/b", "prefix": ""}, {}):
        with Client("http://shop/rec/", transport=httpx.MockTransport(answered), **more) as client:  # type: ignore[arg-type]
            client.recommend(user_id="u")
    assert paths == ["/rec/spaces/shoes/v1/recommend", "/rec/spaces/a%2Fb/recommend", "/rec/v1/recommend"]


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TypeError, match="timeout_s"):
        Client("http://127.0.0.1:1", timeout=3)  # type: ignore[call-arg]
