"""Client of the recommender gpt4rec: lists, events, sessions, erasure. `Client` for threads, `AsyncClient` for asyncio.

with Client("http://127.0.0.1:8000", fallback=["50", "181"]) as client:
    answer = client.recommend(session_id="s1", k=5)
    client.track(answer.event("click", answer.item_ids[0]))
"""

from gpt4rec_client.answers import Erased, EventsAnswer, RankedItem, Recommendation, Related
from gpt4rec_client.async_client import AsyncClient
from gpt4rec_client.client import Client
from gpt4rec_client.errors import (
    BadAnswer,
    ClientError,
    Conflict,
    Fault,
    Forbidden,
    Gone,
    InvalidRequest,
    NotFound,
    Problem,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from gpt4rec_client.events import Event
from gpt4rec_client.item_calls import ImportedLine, Item, ItemChange, ItemFields, ItemLine, ItemPage
from gpt4rec_client.items import AsyncItems, Items
from gpt4rec_client.options import Options
from gpt4rec_client.questions import Decoding, InlineEvent, Question

__all__ = [
    "AsyncClient",
    "AsyncItems",
    "BadAnswer",
    "Client",
    "ClientError",
    "Conflict",
    "Decoding",
    "Erased",
    "Event",
    "EventsAnswer",
    "Fault",
    "Forbidden",
    "Gone",
    "ImportedLine",
    "InlineEvent",
    "InvalidRequest",
    "Item",
    "ItemChange",
    "ItemFields",
    "ItemLine",
    "ItemPage",
    "Items",
    "NotFound",
    "Options",
    "Problem",
    "Question",
    "RankedItem",
    "Recommendation",
    "Related",
    "TimedOut",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
__version__ = "0.1.0"
