"""Opens what the roles `answer` and `encode` have besides: the stream between them."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

from service.assembly.opening import Opening
from service.history.encode_backlog import watch_backlog
from service.history.handover import Handover
from service.history.state_keeper import StateKeeper
from service.history.state_writer import StateWriter
from service.history.stream_encoder import StreamEncoder
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.metrics.encode_metrics import EncodeMetrics
from service.process.background import spawn
from service.store.records import Subject
from service.store.store import Store
from service.store.streams import encode_scripts
from service.tracing import tracing


def open_handover(opening: Opening, store: Store) -> Handover | None:
    """Returns what hands subjects over to the processes that encode; None unless the role is `answer`."""
    settings, stack = opening.space.settings, opening.stack
    if settings.role != "answer":
        return None
    store.server.expect(*encode_scripts.ANSWERS)
    metrics = EncodeMetrics(opening.metrics.registry)
    handover = Handover(
        store.encoding,
        metrics,
        shards=settings.encode_shards,
        cap=settings.encode_cap,
        waiting_max=settings.write_behind_max,
        carrier=_carrier,
    )
    stack.push_async_callback(handover.drain, settings.drain_timeout_s)
    spawn(stack, handover.run)
    spawn(stack, lambda: watch_backlog(store.encoding, metrics, settings.encode_shards))
    return handover


def open_stream_encoder(
    opening: Opening,
    store: Store,
    states: StateKeeper,
    queue: WriteQueue,
    model: Callable[[Subject], ServedModel],
) -> None:
    """Starts what encodes the subjects of the stream.

    Args:
        opening: Of the space.
        store: Of the space.
        states: Encodes.
        queue: Where `states` puts the profiles whose state must be stored.
        model: Returns the model that answers a subject.
    """
    settings, stack = opening.space.settings, opening.stack
    store.server.expect(*encode_scripts.ENCODES)
    metrics = EncodeMetrics(opening.metrics.registry)
    encoder = StreamEncoder(
        store.encoding,
        states,
        StateWriter(states, store, opening.metrics),
        queue,
        model,
        metrics,
        consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        shards=settings.encode_shards,
        batch_max=settings.encode_batch_max,
        poll_s=settings.encode_poll_ms / 1000.0,
        patience_s=settings.encode_patience_s,
    )
    spawn(stack, lambda: watch_backlog(store.encoding, metrics, settings.encode_shards))
    spawn(stack, encoder.run)
    stack.push_async_callback(encoder.drain, settings.drain_timeout_s)


def _carrier() -> dict[str, str]:
    """The trace of the request that is being answered, if its spans are kept."""
    return tracing.carrier() if tracing.sampled() else {}
