"""The file of the spaces, `GPT4REC_SPACES`: what each further shop of a deployment has of its own.

It is read once, at the start, and checked as a whole. Every error names the place in the file and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.common.errors import SettingsError
from service.settings.environment import PREFIX
from service.settings.service_settings import Settings
from service.settings.space import DEFAULT, Space

SPACES_MAX = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MOST_BYTES = 1 << 20
_VARIABLE = f"{PREFIX}SPACES"

# Settings that a space may have in place of those of the process. The others describe the process, its listener or its
# Redis, or are fields of the space itself.
OVERRIDABLE = frozenset({
    "answers_mib", "api_rate", "audit_cap", "batch_max", "batch_window_ms", "breaker_failure_ratio",
    "breaker_half_open_probes", "breaker_hold_max_s", "breaker_min_attempts", "breaker_open_s", "breaker_window_s",
    "cache_mib", "catch_up_timeout_ms", "cursor_ttl_s", "deadline_max_ms", "deadline_ms", "engine_stall_s",
    "engine_threads", "error_budget_share", "exposures", "exposures_cap", "exposures_queue_max", "exposures_share",
    "exposures_shards", "fallback_reserve_ms", "filter_build_share", "filters_mib", "future_tolerance_s", "grafana_url",
    "inflight_max", "history_cap", "history_searches", "history_sessions", "history_ttl_s", "items_max",
    "latency_budget_share", "models_held_mib", "order_first", "queue_max", "runbook_url", "seen_max",
    "served_budget_share", "signals_cap", "signals_ttl_s", "state", "state_ttl_s", "watch", "write_behind_max",
})  # fmt: skip
_FIELDS = {"artifact": "artifact", "policies": "policies", "catalogue_updates": "catalogue_updates",
           "redis_prefix": "key_prefix", "api_keys": "api_keys_file", "ops_tokens": "ops_tokens_file"}  # fmt: skip


class Entry(BaseModel):
    """One space of the file. Paths are relative to the folder of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    artifact: Path = Field(description="Artefact folder, or a folder of artefacts, as of `GPT4REC_ARTIFACT`.")
    policies: Path | None = Field(None, description="Policies file; without it, that of `GPT4REC_POLICIES`.")
    catalogue_updates: Path | None = Field(None, description="File of stock changes and new items.")
    key_prefix: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Prefix of every key; without it `<GPT4REC_REDIS_PREFIX>space:<name>:`.",
    )
    settings: dict[str, Any] = Field(
        {}, description="Settings in place of those of the process, by name: `deadline_ms: 60`."
    )
    api_keys_file: Path | None = Field(
        None, description="File of the API keys of the space, written as those of `GPT4REC_API_KEYS`, and followed."
    )
    ops_tokens_file: Path | None = Field(
        None, description="File of tokens that may operate this space alone, written as `GPT4REC_OPS_TOKENS`."
    )
    share: float = Field(
        1.0, ge=0.01, le=100, description="Weight of the space where several wait for the engine at once."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceEntry:
    """A space as the file describes it.

    Attributes:
        space: What the rooms need to know.
        place: Where it is described, for messages.
        api_keys_file: File of its API keys, None if it has none.
        ops_tokens_file: File of its ops tokens, None if it has none.
    """

    space: Space
    place: str
    api_keys_file: Path | None
    ops_tokens_file: Path | None


class _Loader(yaml.SafeLoader):
    """YAML in which a name stands once: of two spaces with one name, the second would replace the first unseen."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        name = loader.construct_object(key)
        if isinstance(name, Hashable) and name in seen:
            raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {name} is there twice; remove one")
        if isinstance(name, Hashable):
            seen.add(name)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(settings: Settings) -> tuple[SpaceEntry, ...]:
    """Returns the spaces of the file that the settings name, in its order; none without a file.

    Raises:
        SettingsError: The file cannot be read, or something in it is wrong; the message names the place.
    """
    if settings.spaces is None:
        return ()
    path = settings.spaces
    try:
        return _spaces(_content(path), path.parent, settings)
    except SettingsError as error:
        raise SettingsError(f"{_VARIABLE}: {path}: {error}") from None


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise SettingsError(f"the file is larger than {_MOST_BYTES} bytes; is it the right one?")
        # The loader is a safe one, with a check of its own.
        data = yaml.load(raw.decode(), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise SettingsError(f"cannot be read ({type(error).__name__}); name a file that is there") from None
    except (yaml.YAMLError, ValueError) as error:  # an impossible date raises ValueError
        raise SettingsError(f"is not valid YAML: {error}") from None
    except RecursionError:
        raise SettingsError("is not valid YAML: it is nested too deeply") from None
    if not isinstance(data, dict) or set(data) != {"spaces"}:
        raise SettingsError("write one mapping `spaces:` with an entry `NAME: {artifact: …}` for each space")
    if not isinstance(data["spaces"], dict) or not data["spaces"]:
        raise SettingsError("spaces: write an entry `NAME: {artifact: …}` for each space, or leave the setting out")
    found: Mapping[Any, Any] = data["spaces"]
    return found


def _spaces(content: Mapping[Any, Any], folder: Path, settings: Settings) -> tuple[SpaceEntry, ...]:
    if len(content) > SPACES_MAX:
        raise SettingsError(f"spaces: there are {len(content)}; one deployment serves at most {SPACES_MAX}")
    found = tuple(_space(name, entry, folder, settings) for name, entry in content.items())
    _apart([Space.default(settings), *(one.space for one in found)])
    return found


def _space(name: Any, content: Any, folder: Path, settings: Settings) -> SpaceEntry:
    place = f"spaces.{name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingsError(
            f"{place}: a name has 1 to 32 of a-z, 0-9 and -, and begins with a letter or digit (quote a number)"
        )
    if name == DEFAULT:
        raise SettingsError(f"{place}: the settings of the process describe this space; choose another name")
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error, place))) from None
    own = _settings(name, entry, folder, settings, place)
    return SpaceEntry(
        space=Space.of(name, own, entry.share),
        place=place,
        api_keys_file=_below(folder, entry.api_keys_file),
        ops_tokens_file=_below(folder, entry.ops_tokens_file),
    )


def _settings(name: str, entry: Entry, folder: Path, settings: Settings, place: str) -> Settings:
    """Returns the settings in the scope of a space: those of the process, and what the space has in their place."""
    for setting in entry.settings:
        if setting not in OVERRIDABLE:
            raise SettingsError(f"{place}.settings.{setting}: {_not_of_a_space(setting)}")
    own = {
        "artifact": _below(folder, entry.artifact),
        "policies": _below(folder, entry.policies) or settings.policies,
        "catalogue_updates": _below(folder, entry.catalogue_updates),
        "redis_prefix": settings.redis_prefix,
    }
    try:
        made = Settings.model_validate({**dict(settings), **own, **entry.settings})
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error, f"{place}.settings"))) from None
    if made.deadline_ms > made.deadline_max_ms:
        raise SettingsError(f"{place}.settings: deadline_ms is above deadline_max_ms; lower one or raise the other")
    prefix = entry.key_prefix or f"{settings.redis_prefix}space:{name}:"
    # Longer than a prefix that operators choose: it holds one, and the name.
    return made.model_copy(update={"redis_prefix": prefix})


def _not_of_a_space(setting: str) -> str:
    if setting in _FIELDS:
        return f"write it beside `settings`, as {_FIELDS[setting]}"
    if setting in Settings.model_fields:
        return f"it belongs to the process; set {PREFIX}{str(setting).upper()}"
    close = get_close_matches(str(setting), OVERRIDABLE, n=1)
    return "there is no such setting" + (f"; did you mean {close[0]}?" if close else "")


def _apart(spaces: Sequence[Space]) -> None:
    """Raises SettingsError if keys of one space could be keys of another.

    Below `<redis_prefix>space:` the default space has no keys, though its own prefix begins all of them.
    """
    default, *others = spaces
    below = f"{default.key_prefix}space:"
    for number, space in enumerate(others):
        for other in others[:number]:
            if _overlap(space.key_prefix, other.key_prefix):
                raise SettingsError(
                    f"spaces.{space.name}: its key prefix {space.key_prefix} and {other.key_prefix} of "
                    f"spaces.{other.name} begin alike; give one a key_prefix that does not begin with the other"
                )
        if _overlap(space.key_prefix, default.key_prefix) and not (
            space.key_prefix.startswith(below) and len(space.key_prefix) > len(below)
        ):
            raise SettingsError(
                f"spaces.{space.name}: its key prefix {space.key_prefix} and {default.key_prefix} of "
                f"{PREFIX}REDIS_PREFIX begin alike; leave key_prefix out, or begin it otherwise"
            )


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _below(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path


def _faults(error: ValidationError, place: str) -> list[str]:
    return [
        ".".join([place, *(str(step) for step in fault["loc"])]) + f": {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    ]
