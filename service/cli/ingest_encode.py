"""`gpt4rec ingest encode`: every user of a file is encoded before they ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from service.cli.messages import complain

if TYPE_CHECKING:
    from service.settings.service_settings import Settings
    from service.settings.space import Space
    from service.store.store_settings import StoreSettings

# Shortest time between two lines about how far it is.
_LINE_S = 5.0


def encode_command(
    users: Annotated[Path, typer.Option(help="File of users: an id a line, or what `gpt4rec data users` writes.")],
    redis: Annotated[str | None, typer.Option(help="URL of the service's Redis.")] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="A space of GPT4REC_SPACES, or default; may be given several times. Without it: all."),
    ] = None,
    progress: Annotated[
        Path | None,
        typer.Option(
            help="File that says how far it is (USERS.encoded; of a space, with its name behind it); the same command "
            "goes on there."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Whether to wait until everything is encoded.")] = True,
) -> None:
    """Hands all users of a file to the processes of the role `encode`, which store the states of their histories.

    Settings are those of the service, GPT4REC_… (docs/reference.md): spaces, prefix, hashing of ids, shards.
    """
    from service.common import logs
    from service.common.errors import ServiceError
    from service.settings.loader import load

    logs.configure()
    settings = load(redis_url=redis)
    if settings.redis_url.get_secret_value() == "embedded":
        complain("--redis: name the Redis of the service; an embedded one is another process's own")
        raise typer.Exit(1)
    kept = progress or users.with_name(f"{users.name}.encoded")
    try:
        spaces = _spaces(settings, space)
        done = asyncio.run(_encode(spaces, users, kept, wait=wait))
    except ServiceError as error:
        complain(error)
        raise typer.Exit(1) from error
    for one, count in zip(spaces, done, strict=True):
        where = f" in {one.name}" if settings.spaces else ""
        typer.echo(f"{count:,} users {'encoded' if wait else 'handed over'}{where}")


def _spaces(settings: Settings, names: Sequence[str] | None) -> list[Space]:
    """Returns the spaces of these names, all without a name.

    Raises:
        SettingsError: The file of the spaces is wrong, or there is no space of a name.
    """
    from service.common.errors import SettingsError
    from service.settings.space import Space
    from service.spaces import spaces_file

    every = {one.name: one for one in (Space.default(settings), *(e.space for e in spaces_file.read(settings)))}
    if strange := [name for name in names or () if name not in every]:
        raise SettingsError(f"--space: there is no space {strange[0]}; there are {', '.join(every)}")
    return [every[name] for name in dict.fromkeys(names or every)]


async def _encode(spaces: Sequence[Space], users: Path, kept: Path, *, wait: bool) -> list[int]:
    """Hands the users over in each space, and waits for all of them; returns their number in each."""
    from service.history.encode_all import hand_over_all, wait_until_encoded
    from service.history.pseudonyms import Pseudonyms
    from service.settings.space import DEFAULT
    from service.store.store import Store

    stores = [Store(_store_settings(one)) for one in spaces]
    try:
        done = []
        for one, store in zip(spaces, stores, strict=True):
            settings = one.settings
            done.append(
                await hand_over_all(
                    store.encoding,
                    Pseudonyms(settings.hash_user_ids),
                    users,
                    kept if one.name == DEFAULT else kept.with_name(f"{kept.name}.{one.name}"),
                    shards=settings.encode_shards,
                    cap=settings.encode_cap,
                    say=_teller(),
                )
            )
        if wait:
            for one, store in zip(spaces, stores, strict=True):
                await wait_until_encoded(store.encoding, one.settings.encode_shards)
        return done
    finally:
        for store in stores:
            await store.close()


def _store_settings(space: Space) -> StoreSettings:
    from service.store.store_settings import StoreSettings

    settings = space.settings
    return StoreSettings(
        url=settings.redis_url.get_secret_value(),
        prefix=space.key_prefix,
        history_cap=1,
        ttl_s=settings.history_ttl_s,
        read_timeout_ms=settings.redis_read_timeout_ms,
        write_timeout_ms=settings.redis_write_timeout_ms,
    )


def _teller() -> Callable[[int], None]:
    """Returns what says how many users were handed over, now and then."""
    console, said = Console(stderr=True), [time.monotonic()]

    def say(done: int) -> None:
        if time.monotonic() - said[0] >= _LINE_S:
            said[0] = time.monotonic()
            console.print(f"{done:,} users handed over", highlight=False)

    return say
