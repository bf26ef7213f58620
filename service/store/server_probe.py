"""Tries what the service needs of its server: a write, a script, rights, memory that keeps what was written."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.store import lua_scripts
from service.store.lua_script import Script
from service.store.redis.redis_link import RedisLink, ScriptCall
from service.store.redis_rights import commands_of, probe_of

# How often all rights are tried while nothing is wrong; each trial is a write that replicas and disk get too.
_RIGHTS_S = 5.0
_WRITE = Script("""
redis.call('SET', KEYS[1], 'x', 'PX', 60000)
redis.call('UNLINK', KEYS[1])
return {}
""")

Run = Callable[[Sequence[ScriptCall]], Awaitable[list[Any]]]


class ServerProbe:
    """Probes the server of a store. Every method raises StoreUnavailable and nothing else."""

    def __init__(
        self, link: RedisLink, run: Run, *, prefix: str, channel: str, timeout_s: float, clock: Clock = time.monotonic
    ) -> None:
        """Prepares the probe.

        Args:
            link: The connections.
            run: Runs scripts as durably as events are written.
            prefix: Prefix of every key.
            channel: A channel to which the service publishes.
            timeout_s: Time-out of a command.
            clock: Monotonic seconds.
        """
        self._link, self._run, self._timeout_s, self._clock = link, run, timeout_s, clock
        self._prefix, self._channel = prefix, channel
        self._scripts: tuple[Script, ...] = lua_scripts.ALL
        self._rights = probe_of(self._scripts)
        self._rights_at = -math.inf
        self._refusals = 0
        self._missing: frozenset[str] = frozenset()

    def expect(self, *scripts: Script) -> None:
        """Adds scripts whose rights are probed too."""
        self._scripts = (*self._scripts, *scripts)
        self._rights = probe_of(self._scripts)

    async def write(self) -> frozenset[str]:
        """Runs a script that writes; now and then, and while something is wrong, one that tries every right.

        Returns:
            Commands that the user may not run, and without which the service works for the most part.

        Raises:
            StoreUnavailable: A write or a script does not work, or the user lacks a right that a script needs.
        """
        await self._check_slots()
        try:
            if self._clock() < self._rights_at and self._refusals == self._link.refusals:
                await self._run([ScriptCall(_WRITE, (f"{self._prefix}{{ops}}:probe",), ())])
            else:
                await self._check_rights()
        except StoreUnavailable as error:
            self._rights_at = -math.inf
            if error.cause == "no_permission" and not self._link.denied:
                raise StoreUnavailable(f"{error} (the keys are {self._prefix}*)", cause=error.cause) from error
            raise
        return self._missing

    async def _check_rights(self) -> None:
        """Tries every command, among the keys of subjects and among those of the deployment."""
        self._refusals = self._link.refusals
        keys = (f"{self._prefix}{{u:}}:probe", f"{self._prefix}{{ops}}:probe")
        replies = await self._run([ScriptCall(self._rights, (key,), (self._channel,)) for key in keys])
        denied = {reply[i].decode(): reply[i + 1].decode() for reply in replies for i in range(0, len(reply), 2)}
        needed = commands_of(self._scripts)
        self._link.denied, self._missing = frozenset(denied) & needed, frozenset(denied) - needed
        if self._link.denied:
            names = ", ".join(f"+{name.lower()}" for name in sorted(self._link.denied))
            raise StoreUnavailable(f"the user lacks {names}: {next(iter(denied.values()))}", cause="no_permission")
        self._rights_at = self._clock() + _RIGHTS_S

    async def subscribe(self) -> bool:
        """Returns whether the user may subscribe to the channel."""
        messages = self._link.messages(self._channel, greeting=True)
        try:
            async with contextlib.aclosing(messages), asyncio.timeout(self._timeout_s):
                await anext(messages)
        except TimeoutError:
            raise StoreUnavailable("SUBSCRIBE: no reply in time", cause="timeout") from None
        except StoreUnavailable as error:
            if error.cause != "no_permission":
                raise
            return False
        return True

    async def eviction_policy(self) -> str:
        """Returns the server's `maxmemory-policy`; empty if it does not say."""
        info = await self._link.command("INFO", "memory", timeout_s=self._timeout_s)
        if isinstance(info, dict) and "maxmemory_policy" not in info:  # of a cluster: by node
            info = next(iter(info.values()), {})
        policy = info.get("maxmemory_policy", "") if isinstance(info, dict) else ""
        return policy.decode() if isinstance(policy, bytes) else str(policy)

    async def _check_slots(self) -> None:
        """Raises StoreUnavailable if a slot of the cluster has no server, after asking the cluster again."""
        if self._link.uncovered_slots:
            await self._link.refresh_slots(timeout_s=self._timeout_s)
            if missing := self._link.uncovered_slots:
                raise StoreUnavailable(f"{missing} slots have no server", cause="slots_uncovered")
