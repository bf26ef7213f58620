"""Opens what has to do with items that are stored over HTTP."""

from __future__ import annotations

from service.assembly.opening import Opening
from service.catalogue.item_views import ItemViews
from service.catalogue.items import Items
from service.catalogue.live_items import LiveItems
from service.catalogue.search import ItemSearch
from service.catalogue.shop_items import ShopItems
from service.lifecycle.serving import Serving
from service.process.background import spawn
from service.store.store import Store


async def open_live_items(opening: Opening, store: Store) -> LiveItems:
    """Returns the stored items after a first look, so that the first answer already follows them."""
    live = LiveItems(store.items, opening.metrics, copy=opening.space.copy_of("items"))
    await live.begin()
    opening.stack.push_async_callback(live.keep)
    spawn(opening.stack, live.run)
    return live


def open_items(opening: Opening, store: Store, live: LiveItems, serving: Serving) -> Items:
    """Returns what changes, shows and finds items."""
    search = ItemSearch(live)
    opening.stack.callback(search.close)
    shop = ShopItems(store.items, opening.metrics, most=opening.space.settings.items_max)
    return Items(live, shop, ItemViews(store.items, live, search, serving), search)
