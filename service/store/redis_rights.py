"""What the service's user of Redis must be allowed to do, and which of that it is not.

A script fails at the first command that the user may not run, after the writes before it. So every command of every
script is tried beforehand, on a key of no content and inside a script, where the server checks the same rights. This
needs no right to ACL commands, and it works on every server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from service.store import lua_scripts
from service.store.lua_script import Script

# What is sent outside of scripts; WAIT and WAITAOF only for a durability, SELECT only for a database other than 0.
_PLAIN = (
    "client|setinfo", "client|setname", "eval", "evalsha", "hdel", "hgetall", "info", "lrange", "ping", "select",
    "subscribe", "wait", "waitaof",
)  # fmt: skip
# What a cluster's client says as well.
_CLUSTER = ("asking", "cluster|slots")
# What Redis 7.0 does not have: it refuses a line that names them.
SINCE_7_2 = frozenset({"client|setinfo", "waitaof"})
# The least rights of the user of the Sentinels, which has nothing to do with that of the data.
SENTINEL_RIGHTS = "&* -@all +auth +client|setinfo +ping +subscribe +sentinel|masters +sentinel|get-master-addr-by-name"

# Arguments of a trial, after the key: as many as the command needs. The key holds a text, so that every command for
# another type is refused without an effect once the right to it has been checked.
_TRIALS: dict[str, str] = {
    "APPEND": "x", "EXISTS": "", "EXPIRE": "60", "GET": "", "GETRANGE": "0 0", "HDEL": "x", "HMGET": "x",
    "HSET": "x x", "INCRBY": "0", "LPUSH": "x", "LRANGE": "0 0", "LTRIM": "0 0", "PEXPIRE": "60000",
    "PTTL": "", "SADD": "x",
    "SETRANGE": "0 x", "SMEMBERS": "", "TYPE": "", "XACK": "x 0-1", "XADD": "* x x", "XCLAIM": "x x 0 0-1",
    "XDEL": "0-1", "XLEN": "", "XPENDING": "x", "XRANGE": "- +", "XREVRANGE": "+ -", "XTRIM": "MAXLEN 1",
    "ZADD": "0 x", "ZCARD": "", "ZRANGE": "0 0", "ZREM": "x",
    "ZREMRANGEBYRANK": "0 0", "ZREVRANGE": "0 0",
    "ZREVRANGEBYSCORE": "0 0", "ZSCORE": "x",
}  # fmt: skip
_PLAIN_TRIALS = {"HGETALL": ""}
# The first and the last call of the probe, one that needs no key, one that needs a second key, and those with words
# before their key.
_OTHER = frozenset({"SET", "UNLINK", "TIME", "RENAME", "XGROUP", "XINFO", "XREADGROUP"})


def commands_of(scripts: Iterable[Script]) -> frozenset[str]:
    """Returns the commands that the scripts cannot do without, in capitals."""
    return frozenset().union(*(script.commands for script in scripts))


def trials() -> dict[str, str]:
    """Returns the arguments that every trial passes after its key, by command."""
    return {**_TRIALS, **_PLAIN_TRIALS}


def probe_of(scripts: Iterable[Script]) -> Script:
    """Returns the script that tries every command of the scripts.

    KEYS: a key that nobody else uses; ARGV: a channel. It replies with the commands, and `PUBLISH`, that the
    user may not run, each followed by the server's words. It fails as a write would, if a write cannot be had at all.

    Raises:
        LookupError: A command has no trial: add its arguments to `_TRIALS`.
    """
    wanted = commands_of(scripts)
    if strange := wanted - _TRIALS.keys() - _OTHER:
        raise LookupError(f"_TRIALS has no arguments for {', '.join(sorted(strange))}")
    calls: list[tuple[str, ...]] = [("SET", "KEYS[1]", "x", "PX", "60000")]
    calls += [(name, "KEYS[1]", *_TRIALS[name].split()) for name in sorted(wanted & _TRIALS.keys())]
    calls += [("RENAME", "KEYS[1]", "KEYS[1]")] if "RENAME" in wanted else []
    calls += [("XINFO", "GROUPS", "KEYS[1]")] if "XINFO" in wanted else []
    calls += [("XGROUP", "CREATE", "KEYS[1]", "x", "0")] if "XGROUP" in wanted else []
    group = ("XREADGROUP", "GROUP", "x", "x", "COUNT", "1", "STREAMS", "KEYS[1]", ">")
    calls += [group] if "XREADGROUP" in wanted else []
    calls += [(name, "KEYS[1]", *rest.split()) for name, rest in _PLAIN_TRIALS.items()]
    calls += [("TIME",), ("UNLINK", "KEYS[1]")]
    tries = "\n".join(f"try({', '.join(_lua(part) for part in call)})" for call in calls)
    return Script(
        """
local denied = {}
local function forbids(reply)
  local text = type(reply) == 'table' and reply['err'] or ''
  for _, words in ipairs({'NOPERM', 'The user executing the script', 'ACL failure'}) do
    if string.find(text, words, 1, true) then return text end
  end
end
local function try(name, ...)
  local text = forbids(redis.pcall(name, ...))
  if text then
    denied[#denied + 1] = name
    denied[#denied + 1] = text
  end
end
local first = redis.pcall('SET', KEYS[1], 'x', 'PX', 60000)
if first['err'] and not forbids(first) then return first end
"""
        + tries
        + """
try('PUBLISH', ARGV[1], '')
return denied
""",
        optional=True,
    )


def acl_line(
    user: str,
    password: str,
    prefix: str,
    scripts: Iterable[Script] = (),
    *,
    cluster: bool = False,
    unknown: Collection[str] = (),
) -> str:
    """Returns the command that creates a user with the least rights.

    Args:
        user: Name of the user.
        password: Its password.
        prefix: Prefix of every key, as in `GPT4REC_REDIS_PREFIX`.
        scripts: Scripts that are run besides those of the store.
        cluster: Whether the server is a cluster.
        unknown: Commands that the server does not have.
    """
    commands = {name.lower() for name in commands_of((*lua_scripts.ALL, *scripts))} | {"publish"} | set(_PLAIN)
    if cluster:
        commands |= set(_CLUSTER)
    commands -= set(unknown)
    rights = " ".join(f"+{name}" for name in sorted(commands))
    return f"ACL SETUSER {user} on >{password} resetkeys ~{prefix}* resetchannels &{prefix}* -@all {rights}"


def _lua(part: str) -> str:
    return part if part == "KEYS[1]" else f"'{part}'"
