"""All users of a file are encoded by the processes of the role `encode`; interrupted, it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from service.cli.ingest import app as ingest
from service.history import encode_all
from service.history.encode_all import UsersFileError, hand_over_all, users_of, wait_until_encoded
from service.history.pseudonyms import Pseudonyms
from tests.contract.test_roles import role, runs, stored_state, stream
from tests.support.aio import asynchronous
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


def test_a_file_of_users_has_ids_or_objects(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text('ann\n\n{"user_id": "b,o"}\r\neve')
    assert [user for user, _ in users_of(file)] == ["ann", "b,o", "eve"]
    (_, behind), *_ = users_of(file)
    assert [user for user, _ in users_of(file, behind)] == ["b,o", "eve"]
    file.write_text('{"id": 1}\n')
    with pytest.raises(UsersFileError, match="names no user"):
        list(users_of(file))
