"""`gpt4rec ingest encode`: every user of a file is encoded before they ask."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.cli.messages import complain

# Shortest time between two lines about how far it is.
_LINE_S = 5.0


def encode_command(
    users: Annotated[Path, typer.Option(help="File of users: an id a line, or what `gpt4rec data users` writes.")],
    redis: Annotated[str | None, typer.Option(help="URL of the service's Redis.")] = None,
    progress: Annotated[
        Path | None, typer.Option(help="File that says how far it is (USERS.encoded); the same command goes on there.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Whether to wait until everything is encoded.")] = True,
) -> None:
    """Hands all users of a file to the processes of the role `encode`, which store the states of their histories.

    Settings are those of the service, GPT4REC_… (docs/reference.md): prefix, hashing of ids, shards of the stream.
    """
    from service.common import logs
    from service.common.errors import ServiceError
    from service.common.settings_loader import load
    from service.history.encode_all import hand_over_all, wait_until_encoded
    from service.history.pseudonyms import Pseudonyms
    from service.store.store import Store
    from service.store.store_settings import StoreSettings

    logs.configure()
    settings = load(redis_url=redis)
    if settings.redis_url.get_secret_value() == "embedded":
        complain("--redis: name the Redis of the service; an embedded one is another process's own")
        raise typer.Exit(1)
    console, said = Console(stderr=True), [time.monotonic()]

    def say(done: int) -> None:
        if time.monotonic() - said[0] >= _LINE_S:
            said[0] = time.monotonic()
            console.print(f"{done:,} users handed over", highlight=False)

    async def run() -> int:
        store = Store(
            StoreSettings(
                url=settings.redis_url.get_secret_value(),
                prefix=settings.redis_prefix,
                history_cap=1,
                ttl_s=settings.history_ttl_s,
                read_timeout_ms=settings.redis_read_timeout_ms,
                write_timeout_ms=settings.redis_write_timeout_ms,
            )
        )
        try:
            kept = progress or users.with_name(f"{users.name}.encoded")
            ids, shards = Pseudonyms(settings.hash_user_ids), settings.encode_shards
            done = await hand_over_all(
                store.encoding, ids, users, kept, shards=shards, cap=settings.encode_cap, say=say
            )
            if wait:
                await wait_until_encoded(store.encoding, shards)
            return done
        finally:
            await store.close()

    try:
        done = asyncio.run(run())
    except ServiceError as error:
        complain(error)
        raise typer.Exit(1) from error
    typer.echo(f"{done:,} users {'encoded' if wait else 'handed over'}")
