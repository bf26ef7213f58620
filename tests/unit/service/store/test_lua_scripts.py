"""What the scripts promise can be read in them: reads say that they write nothing, and each command has its right."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.access import rate_limits
from service.store import lua_scripts
from service.store.lua_script import Script
from service.store.redis_rights import acl_line, probe_of

WRITES = frozenset(
    ("SET", "HSET", "HDEL", "ZADD", "ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "XADD", "XDEL", "XTRIM",
     "SADD", "SREM", "LPUSH", "LTRIM", "UNLINK", "PEXPIRE", "EXPIRE", "INCRBY", "RENAME"),
)  # fmt: skip


@pytest.mark.parametrize("script", lua_scripts.ALL, ids=lambda script: script.sha[:8])
def test_a_script_that_only_reads_says_so_and_no_other_does(script: Script) -> None:
    assert script.source.startswith("#!lua flags=no-writes\n") == (not script.commands & WRITES)


def test_every_command_of_every_script_is_tried_by_the_probe() -> None:
    scripts = (*lua_scripts.ALL, *rate_limits.SCRIPTS)
    probe = probe_of(scripts)
    for script in scripts:
        assert all(f"try('{command}'" in probe.source for command in script.commands)
    assert not probe.commands


def test_a_command_without_a_trial_is_named() -> None:
    with pytest.raises(LookupError, match="OBJECT"):
        probe_of([Script("return redis.call('OBJECT', 'ENCODING', KEYS[1])")])


def test_publishing_can_never_end_a_script() -> None:
    for script in lua_scripts.ALL:
        assert "PUBLISH" not in script.commands


def test_the_least_rights_are_those_of_the_documents() -> None:
    page = (Path(__file__).parents[4] / "docs" / "deployment.md").read_text()
    for cluster in (False, True):
        assert acl_line("gpt4rec", "PASSWORD", "gpt4rec:", rate_limits.SCRIPTS, cluster=cluster) in page
