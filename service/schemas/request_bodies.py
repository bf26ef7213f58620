"""All request bodies."""

from __future__ import annotations

from pydantic import BaseModel

from service.schemas.body_bounds import most_nodes
from service.schemas.items import ItemLine, ItemRequest
from service.schemas.list_requests import BasketRequest, BatchRequest
from service.schemas.ops_requests import (
    ChangeRequest,
    FallbackRequest,
    HoldOutRequest,
    PoliciesRequest,
    PromoteRequest,
    StartExperimentRequest,
)
from service.schemas.playground_requests import ListsRequest, WhyRequest
from service.schemas.recommend_request import RecommendRequest
from service.schemas.user_requests import EventsRequest, FeaturesRequest, MergeRequest

REQUEST_BODIES: tuple[type[BaseModel], ...] = (
    RecommendRequest,
    WhyRequest,
    EventsRequest,
    FeaturesRequest,
    MergeRequest,
    FallbackRequest,
    ChangeRequest,
    PoliciesRequest,
    StartExperimentRequest,
    PromoteRequest,
    HoldOutRequest,
    BatchRequest,
    BasketRequest,
    ItemRequest,
    ItemLine,
    ListsRequest,
)
for _body in REQUEST_BODIES:  # now, and not during the first request
    most_nodes(_body)
