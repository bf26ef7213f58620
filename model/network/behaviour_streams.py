"""The streams into which a history is divided by what the user did."""

from __future__ import annotations

from service.artifact.features import EVENT_TYPES

STREAMS = ("click", "purchase", "search")
_STREAM_OF = {"cart": 1, "purchase": 1, "rating": 1, "search": 2}


def stream_of_types(n_types: int) -> list[int]:
    """Returns the stream [n_types + 1] of each event type and of the start token.

    What shows intent to have an item is a purchase, and everything else that is no search is a click. The start token
    is the first click, so that a history without events has a stream.

    Args:
        n_types: Number of event types that the network knows.
    """
    return [*(_STREAM_OF.get(name, 0) for name in EVENT_TYPES[:n_types]), 0]
