"""All users of a file are encoded by the processes of the role `encode`; interrupted, it goes on where it was."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from service.cli.ingest import app as ingest
from service.history import encode_all, state_blob
from service.history.encode_all import UsersFileError, hand_over_all, users_of, wait_until_encoded
from service.history.pseudonyms import Pseudonyms
from service.store.records import Subject
from service.store.store import Store
from tests.contract.test_roles import ENCODER, role, runs, stored_state, stream
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import LAYOUT
from tests.support.shops import shops, spaces_file
from tests.support.valkey import Valkey


@asynchronous
async def test_all_users_of_a_file_are_encoded_by_several_processes(
    shared_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_all, "_BATCH", 7)
    names = [f"user {n}" for n in range(40)]
    file, kept = tmp_path / "users.jsonl", tmp_path / "kept"
    file.write_text("".join(json.dumps({"user_id": name}) + "\n" for name in [*names, "nobody"]))
    async with role(shared_valkey, "all-1:", "answer") as answer:
        for name in names:
            await answer.post_events(name, "1", "2")
        await answer.settled()
        await answer.runtime.space.store.encoding.finish(await stream(answer).read(range(8), "cleared", 1000))
        # Another encoder than the one of the events: nobody has a state, and nothing waits.
        assert await stored_state(answer, names[0]) is None

    def interrupted(done: int) -> None:
        if done >= 14:
            raise KeyboardInterrupt

    async with role(shared_valkey, "all-1:", "encode") as one, role(shared_valkey, "all-1:", "encode") as other:
        encoding, ids = stream(one), Pseudonyms()
        with pytest.raises(KeyboardInterrupt):
            await hand_over_all(encoding, ids, file, kept, shards=8, cap=100, say=interrupted)
        assert json.loads(kept.read_text())["users"] == 14
        told: list[int] = []
        assert await hand_over_all(encoding, ids, file, kept, shards=8, cap=100, say=told.append) == 41
        assert told[0] == 21
        await wait_until_encoded(encoding, 8)
        states = [await stored_state(one, name) for name in names]
        assert all(state is not None and state.h[0] == 2 for state in states)
        assert runs(one) + runs(other) == 40
        assert await hand_over_all(encoding, ids, file, kept, shards=8, cap=100, say=told.append) == 41
        assert told[-1] == 41


def test_the_command_hands_over_and_says_how_many(shared_valkey: Valkey, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann\nbob\n")
    asked = ["encode", "--users", str(tmp_path / "users"), "--no-wait", "--redis"]
    done = CliRunner().invoke(ingest, [*asked, shared_valkey.url], env={"GPT4REC_REDIS_PREFIX": "all-2:"})
    assert done.stdout == "2 users handed over\n", done.output
    assert json.loads((tmp_path / "users.encoded").read_text())["users"] == 2
    with Redis.from_url(shared_valkey.url) as redis:
        assert sum(redis.xlen(f"all-2:encode:{shard}") for shard in range(8)) == 2
    refused = CliRunner().invoke(ingest, [*asked, "embedded"])
    assert refused.exit_code == 1


def test_the_command_hands_the_users_of_all_spaces_over_or_of_those_that_are_named(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("ann\nbob\n")
    file = spaces_file(tmp_path, {"shoes": {}, "books": {"key_prefix": "all-3-books:"}})
    asked = ["encode", "--users", str(tmp_path / "users"), "--no-wait", "--redis", shared_valkey.url]
    environment = {"GPT4REC_REDIS_PREFIX": "all-3:", "GPT4REC_SPACES": str(file)}

    def waiting(prefix: str) -> int:
        with Redis.from_url(shared_valkey.url) as redis:
            return sum(redis.xlen(f"{prefix}encode:{shard}") for shard in range(8))

    some = CliRunner().invoke(ingest, [*asked, "--space", "books"], env=environment)
    assert some.stdout == "2 users handed over in books\n", some.output
    assert [waiting(prefix) for prefix in ("all-3:", "all-3:space:shoes:", "all-3-books:")] == [0, 0, 2]
    rest = CliRunner().invoke(ingest, asked, env=environment)
    assert rest.stdout == "".join(f"2 users handed over in {name}\n" for name in ("default", "books", "shoes"))
    # What was done before is not done again.
    assert [waiting(prefix) for prefix in ("all-3:", "all-3:space:shoes:", "all-3-books:")] == [2, 2, 2]
    assert sorted(path.name for path in tmp_path.glob("users.*")) == [
        "users.encoded", "users.encoded.books", "users.encoded.shoes",
    ]  # fmt: skip
    unknown = CliRunner().invoke(ingest, [*asked, "--space", "hats"], env=environment)
    assert unknown.exit_code == 1
    assert "there is no space hats; there are default, books, shoes" in " ".join(unknown.output.split())


@asynchronous
async def test_an_encoder_of_several_spaces_encodes_what_was_handed_over_in_each(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("ann\n")
    spaces: dict[str, dict[str, Any]] = {"shoes": {}}
    given: dict[str, Any] = {"redis_prefix": "all-4:", "history_cap": 12}
    async with shops(tmp_path, shared_valkey.url, spaces, role="answer", **given) as answer:
        for below in ("", "/spaces/shoes"):
            body = {"events": [{"user_id": "ann", "item_id": "1", "type": "view", "timestamp": 1_700_000_000_000}]}
            assert (await answer.client.post(f"{below}/events", json=body)).status_code == 200
        await asyncio.gather(*(emptied(one.space.store) for one in answer.runtime.spaces.values()))
    async with shops(tmp_path, shared_valkey.url, spaces, **{**given, **ENCODER}) as encoder:
        command = [sys.executable, "-m", "service.cli", "ingest", "encode", "--users", str(tmp_path / "users")]
        own = {"GPT4REC_REDIS_PREFIX": "all-4:", "GPT4REC_SPACES": str(tmp_path / "spaces.yaml")}
        process = await asyncio.create_subprocess_exec(
            *command, "--redis", shared_valkey.url, env={**os.environ, **own}, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert said.decode() == "1 users encoded in default\n1 users encoded in shoes\n"
        for runtime in encoder.runtime.spaces.values():
            space = runtime.space
            record = await space.store.read(Subject("user", "ann"), space.model.encoder_version.name, 2.0)
            state = state_blob.unpack(record.blob, LAYOUT)
            assert state is not None and state.version == record.version


async def emptied(store: Store) -> None:
    """Takes what the events handed over, and encodes nothing."""

    async def taken() -> bool:
        found = await store.encoding.read(range(8), "cleared", 1000)
        await store.encoding.finish(found)
        return bool(found)

    await eventually(taken, within_s=20.0)


def test_a_file_of_users_has_ids_or_objects(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text('ann\n\n{"user_id": "b,o"}\r\neve')
    assert [user for user, _ in users_of(file)] == ["ann", "b,o", "eve"]
    (_, behind), *_ = users_of(file)
    assert [user for user, _ in users_of(file, behind)] == ["b,o", "eve"]
    file.write_text('{"id": 1}\n')
    with pytest.raises(UsersFileError, match="names no user"):
        list(users_of(file))
