"""What both clients can be told, with its defaults."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypedDict
from urllib.parse import quote

from gpt4rec_client.events import Event, OnDrop, Outbox
from gpt4rec_client.fallback import Configured

_LOG = logging.getLogger("gpt4rec_client")


class Options(TypedDict, total=False):
    """Options of a client.

    Attributes:
        api_key: Key of the caller, where the service wants one.
        prefix: Path before every route; `/v1` by default.
        space: Name of the space, where the service has several. None by default: the key says which one is meant, or it
            is the default space.
        timeout_s: Seconds for a call with all its attempts; 1 by default.
        budget_ms: Time budget of a list in the service, where a question names none; without, the service's default.
        send_start: Whether `X-Request-Start` tells when an attempt began, so that time on the way counts against the
            budget; true by default. Switch it off where clocks are not kept in step.
        retries: Attempts after the first, within the same time; 2 by default.
        fallback: Item ids that are shown when the service cannot be asked, or a function from the body of the question
            to them. None by default: without a last good list either, the error is raised.
        kept_lists: Questions whose last good list is kept for the same purpose; 1,000 by default, 0 switches it off.
        queue_max: Events that wait at most; 10,000 by default.
        batch: Events of one request; 100 by default.
        interval_s: The longest that an event waits for others; 1 by default.
        close_timeout_s: Seconds that `close` spends on sending what waits; 5 by default.
        on_drop: Called with events that will not be sent, and why. By default they are counted in the log.
    """

    api_key: str | None
    prefix: str
    space: str | None
    timeout_s: float
    budget_ms: float | None
    send_start: bool
    retries: int
    fallback: Configured | None
    kept_lists: int
    queue_max: int
    batch: int
    interval_s: float
    close_timeout_s: float
    on_drop: OnDrop


def _log_drop(events: Sequence[Event], why: str) -> None:
    """Says that events are lost, without saying whose."""
    _LOG.warning("%d events are not sent: %s", len(events), why)


_DEFAULTS = Options(
    api_key=None, prefix="/v1", space=None, timeout_s=1.0, budget_ms=None, send_start=True, retries=2, fallback=None,
    kept_lists=1000, queue_max=10_000, batch=100, interval_s=1.0, close_timeout_s=5.0, on_drop=_log_drop,
)  # fmt: skip


def complete(given: Options) -> Options:
    """Returns the options with defaults for those that are not given.

    Raises:
        TypeError: There is no such option.
    """
    if unknown := sorted(given.keys() - _DEFAULTS.keys()):
        raise TypeError(f"there is no option {', '.join(unknown)}; there are {', '.join(_DEFAULTS)}")
    return Options(**{**_DEFAULTS, **given})


def address(base_url: str, options: Options) -> str:
    """Returns the address below which every route is. The space is a part of it, so that a service without spaces
    refuses a call that names one."""
    space = options["space"]
    below = "" if space is None else f"/spaces/{quote(space, safe='')}"
    return base_url.rstrip("/") + below + options["prefix"]


def outbox(options: Options) -> Outbox:
    """Returns an empty queue of events."""
    return Outbox(
        most=options["queue_max"], batch=options["batch"], interval_s=options["interval_s"], on_drop=options["on_drop"]
    )
