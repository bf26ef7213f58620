"""The catalogue as routes use it: what changes items, what shows them, and what finds them."""

from __future__ import annotations

from dataclasses import dataclass

from service.catalogue.item_views import ItemViews
from service.catalogue.live_items import LiveItems
from service.catalogue.search import ItemSearch
from service.catalogue.shop_items import ShopItems


@dataclass(frozen=True, slots=True)
class Items:
    """The parts of one space that have to do with its items.

    Attributes:
        live: The stored items as this process has them.
        shop: Changes items.
        views: Shows items.
        search: Finds items.
    """

    live: LiveItems
    shop: ShopItems
    views: ItemViews
    search: ItemSearch
