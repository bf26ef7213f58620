"""The rows of the fail-over table: what happens to which servers, and what is promised of acknowledged events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from loadtests.fleet.failover_scene import Row, World
from loadtests.harness.valkey import TcpValkey
from service.store.records import Subject
from service.store.redis.cluster_slots import key_slot

# A replica is as a rule a few milliseconds behind; what it lacks was acknowledged at most this long before.
_BEHIND_S = 1.0
# A primary that is cut off goes on until it is sure (2 s in a cluster) or has had no replica for 2 s, as told.
_CUT_S = 4.0
_NO_REPLICA = {"min_replicas_to_write": "1", "min_replicas_max_lag": "2"}
_HOLD_S = 3.0


def key_of(user: str) -> str:
    """Returns the key of a user's history."""
    return f"gpt4rec:{Subject('user', user).tag}:events"


_FIRST = key_of("chaos-0")
_KEYS = [key_of(f"chaos-{n}") for n in range(40)]


# -- of a cluster


def _replaced(world: World, old: TcpValkey) -> None:
    took = world.until(lambda: world.cluster.primary_of(_FIRST) is not old, "a replica is promoted")
    world.notes.append(f"a replica had taken over after {took:.1f} s")


def _all_well(world: World) -> None:
    world.until(world.cluster.well, "every node is well and every replica has its copy")


def cluster_killed(world: World) -> None:
    """Kills a primary; its replica takes over, and it comes back as a replica."""
    old = world.cluster.primary_of(_FIRST)
    world.begin()
    old.kill9()
    _replaced(world, old)
    world.hold(_HOLD_S)
    old.start()
    _all_well(world)


def cluster_killed_and_back(world: World) -> None:
    """Kills a primary and starts it again before anybody takes over."""
    old = world.cluster.primary_of(_FIRST)
    world.begin()
    old.kill9()
    old.start()
    _all_well(world)
    if world.cluster.primary_of(_FIRST) is not old:
        world.notes.append("a replica was quicker")


def cluster_planned(world: World) -> None:
    """Hands every primary over to its replica, one after the other."""
    for old in dict.fromkeys(world.cluster.primary_of(key) for key in _KEYS):
        key = next(one for one in _KEYS if world.cluster.primary_of(one) is old)
        world.cluster.fail_over(old)
        world.until(lambda key=key, old=old: world.cluster.primary_of(key) is not old, "the replica is promoted")  # type: ignore[misc]
        _all_well(world)
    world.notes.append("all three shards, one after the other")


def cluster_moved(world: World) -> None:
    """Moves the slots of all users of a primary to another, key by key, and back."""
    cluster = world.cluster
    source = cluster.primary_of(_FIRST)
    target = next(one for key in _KEYS if (one := cluster.primary_of(key)) is not source)
    slots = sorted({key_slot(key) for key in _KEYS if cluster.primary_of(key) is source})
    keys = cluster.move(slots, source, target) + cluster.move(slots, target, source)
    world.notes.append(f"{keys} keys in {len(slots)} slots moved, there and back")


def cluster_moved_whole(world: World) -> None:
    """Moves a primary's slots to another as a whole, and back."""
    cluster = world.cluster
    source = cluster.primary_of(_FIRST)
    target = next(one for key in _KEYS if (one := cluster.primary_of(key)) is not source)
    slots = cluster.slots_of(source)
    cluster.move_whole(slots[0], slots[-1] - 1, source, target)  # one stays, so that it keeps its replica
    cluster.move_whole(slots[0], slots[-1] - 1, target, source)
    world.notes.append(f"{len(slots) - 1} slots moved, there and back")


def cluster_grown(world: World, *, whole: bool) -> None:
    """Adds a primary with a replica, and gives it slots of all others."""
    cluster = world.cluster
    owners = dict.fromkeys(cluster.primary_of(key) for key in _KEYS)
    new, moved = cluster.add(), 0
    for owner in owners:
        if whole:
            slots = cluster.slots_of(owner)
            quarter = slots[: len(slots) // 4]
            cluster.move_whole(quarter[0], quarter[-1], owner, new)
            moved += len(quarter)
        else:
            here = sorted({key_slot(key) for key in _KEYS if cluster.primary_of(key) is owner})
            moved += len(here[::4])
            cluster.move(here[::4], owner, new)
    _all_well(world)
    world.notes.append(f"{moved} slots of {len(owners)} primaries moved to the new one")


def cluster_cut(world: World) -> None:
    """Cuts the network until a replica has taken over, and mends it again."""
    assert world.cable is not None  # noqa: S101 - the row says so
    old = world.cluster.primary_of(_FIRST)
    world.begin()
    world.cable.cut()
    try:
        _replaced(world, old)
        world.hold(_HOLD_S)
    finally:
        world.cable.mend()
    _all_well(world)


# -- of Sentinel


def _master_replaced(world: World, old: TcpValkey) -> None:
    took = world.until(lambda: world.group.master() is not old, "the Sentinels name another master")
    world.notes.append(f"the Sentinels named another master after {took:.1f} s")


def sentinel_killed(world: World) -> None:
    """Kills the master; it comes back as a replica."""
    old = world.group.master()
    world.begin()
    old.kill9()
    _master_replaced(world, old)
    world.hold(_HOLD_S)
    old.start()
    world.until(lambda: old.say("ROLE") == b"*5", "the old master is a replica")


def sentinel_planned(world: World) -> None:
    """Tells a Sentinel to replace the master."""
    old = world.group.master()
    world.begin()
    world.group.fail_over()
    _master_replaced(world, old)
    world.until(lambda: old.say("ROLE") == b"*5", "the old master is a replica")


def sentinel_cut(world: World) -> None:
    """Cuts the network until the other side has another master, and mends it again."""
    assert world.cable is not None  # noqa: S101 - the row says so
    old = world.group.master()
    world.begin()
    world.cable.cut()
    try:
        _master_replaced(world, old)
        world.hold(_HOLD_S)
    finally:
        world.cable.mend()
    world.until(lambda: old.say("ROLE") == b"*5", "the old master is a replica")


# -- what is promised

_LISTS = "; lists come in time throughout, without histories where these cannot be read"
_NONE = "no acknowledged event is lost"
_PROMOTED = (
    "an event survives if a replica that acknowledged it is promoted; here all replicas must acknowledge, so none is "
    "lost"
)
_COPIED = f"lost may be what the primary acknowledged in its last {_BEHIND_S:g} s and had not copied"
_COPIED_AOF = f"{_COPIED}: its own file has it, and the promoted replica's data replace that file"
_CUT_OFF = (
    f"lost may be what the primary acknowledged after it was cut off, until it refuses writes (at most {_CUT_S:g} s: "
    "its node time-out, or min-replicas-max-lag)"
)
Promises = dict[str, tuple[str, tuple[float, float] | None]]
_BY_COPIES: Promises = {
    "memory": (_COPIED, (_BEHIND_S, 0.5)),
    "aof": (_COPIED_AOF, (_BEHIND_S, 0.5)),
    "replica": (_PROMOTED, None),
}
_BY_CUT: Promises = {
    "memory": (_CUT_OFF, (_BEHIND_S, _CUT_S)),
    "aof": (f"{_CUT_OFF}; its own disk has it, and is overwritten", (_BEHIND_S, _CUT_S)),
    "replica": (_PROMOTED, None),
}
_BY_NOTHING: Promises = dict.fromkeys(("memory", "aof", "replica"), (_NONE, None))
_BY_SENTINEL: Promises = {**_BY_COPIES, "replica": (_NONE, None)}
_ALL = ("memory", "aof", "replica")
# Three primaries, then their replicas; the shard of the first user is the one that is cut off.
_SHARD = key_slot(_FIRST) * 3 // 16_384
_ALONE = tuple("far" if n == _SHARD else "near" for n in range(6))
_WITH_IT = tuple("near" if n == _SHARD else "far" for n in range(6))
# The master, two replicas, three Sentinels.
_MASTER_ALONE = ("far", "near", "near", "far", "near", "near")
_WITH_MASTER = ("near", "far", "far", "near", "far", "far")


@dataclass(frozen=True)
class _Happening:
    """What happens to servers, for one row of each durability."""

    kind: str
    name: str
    text: str
    act: Callable[[World], None]
    promises: Promises
    durabilities: tuple[str, ...] = _ALL
    cut: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """Returns a row for each durability."""
        found = []
        for durability in self.durabilities:
            promise, may_lose = self.promises[durability]
            replicas = 1 if self.kind == "cluster" else 2
            found.append(
                Row(self.kind, self.name, self.text, durability, promise + _LISTS, self.act, may_lose, replicas,
                    self.cut, self.options)
            )  # fmt: skip
        return found


_HAPPENINGS = (
    _Happening("cluster", "primary killed", "One of three primaries is killed (-9), and comes back when its replica "
               "has taken over", cluster_killed, _BY_COPIES),
    _Happening("cluster", "primary killed and back", "A primary is killed (-9) and started again at once, before its "
               "replica takes over", cluster_killed_and_back, _BY_NOTHING, ("aof", "replica")),
    _Happening("cluster", "planned fail-over", "Every primary hands over to its replica (`CLUSTER FAILOVER`)",
               cluster_planned, _BY_NOTHING),
    _Happening("cluster", "slots moved key by key", "All slots of a primary that hold users are moved to another and "
               "back (`MIGRATE`)", cluster_moved, _BY_NOTHING, ("memory", "replica")),
    _Happening("cluster", "slots moved whole", "All slots of a primary but one are moved to another and back "
               "(`CLUSTER MIGRATESLOTS`, Valkey 9)", cluster_moved_whole, _BY_NOTHING, ("aof", "replica")),
    _Happening("cluster", "node added, key by key", "A primary with a replica is added, and gets a quarter of the "
               "slots that hold users", partial(cluster_grown, whole=False), _BY_NOTHING, ("replica",)),
    _Happening("cluster", "node added, slots whole", "A primary with a replica is added, and gets a quarter of all "
               "slots", partial(cluster_grown, whole=True), _BY_NOTHING, ("memory",)),
    _Happening("cluster", "primary cut off", "The network between a primary and everything else is cut; the service is "
               "with the others", cluster_cut, _BY_CUT, ("memory", "replica"), _ALONE),
    _Happening("cluster", "service cut off", "The network is cut, and the service is with one primary on the side of "
               "the few", cluster_cut, _BY_CUT, _ALL, _WITH_IT),
    _Happening("sentinel", "master killed", "The master is killed (-9), and comes back when the Sentinels have another",
               sentinel_killed, _BY_COPIES),
    _Happening("sentinel", "planned fail-over", "A Sentinel is told to replace the master", sentinel_planned,
               _BY_SENTINEL, ("memory", "replica")),
    _Happening("sentinel", "master cut off", "The network is cut between the master with one Sentinel and everything "
               "else; the service is with the others", sentinel_cut, _BY_CUT, ("replica",), _MASTER_ALONE, _NO_REPLICA),
    _Happening("sentinel", "service cut off", "The network is cut, and the service is with the master on the side of "
               "the few (`min-replicas-to-write 1`, `min-replicas-max-lag 2`)", sentinel_cut, _BY_CUT,
               ("memory", "replica"), _WITH_MASTER, _NO_REPLICA),
)  # fmt: skip

ROWS: tuple[Row, ...] = tuple(row for one in _HAPPENINGS for row in one.rows())
NAMES = {row.name: row for row in ROWS}
