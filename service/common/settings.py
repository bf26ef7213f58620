"""Every setting of the service: one frozen class, read once at start-up.

A setting `deadline_ms` is read from `GPT4REC_DEADLINE_MS`, or given as a flag of `gpt4rec serve`; a secret is
also read from the file that `GPT4REC_…_FILE` names. An unknown `GPT4REC_…` variable is an error: a misspelt
setting must not be silently ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.common.errors import SettingsError

PREFIX = "GPT4REC_"
# Read by `gpt4rec ops`, not by the service; both may run in one environment.
CLIENT_VARIABLES = ("GPT4REC_OPS_URL", "GPT4REC_OPS_TOKEN")
DEFAULT_POLICIES = Path(__file__).resolve().parent.parent / "policies" / "default.yaml"


class Settings(BaseSettings):
    """Read with `load()`; constructed directly only in tests."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    # -- what is served, and where
    artifact: Path | None = Field(
        None,
        description="Artefact folder (`…/<model_version>/`) to serve, or a folder of them, whose `latest` is. "
        "Those beside it can be activated while it runs: see /ops/models.",
    )
    policies: Path = Field(
        DEFAULT_POLICIES,
        description="Decoding policies file, followed while it changes. What operators set by "
        "PUT /ops/policies holds instead of it.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes on the same port, each with its own engine "
        "and a port of its own above it. /metrics of the shared port adds them up.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    git_commit: str = Field("unknown", description="Commit the image was built from, shown by /version.")

    # -- who may call
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Entries of API keys, with commas or line ends between: `name:key`, or `name:sha256:digest` as "
        "`gpt4rec keys new` prints it; with `:users` after it the key may also read and erase users. Its file is "
        "followed. Empty: the API is open, but for /users, which then takes an ops token.",
    )
    ops_tokens: SecretStr = Field(
        SecretStr(""),
        description="Entries of operators' tokens, `name:token` or `name:sha256:digest`. Its file is followed. Empty: "
        "/ops is off.",
    )
    metrics_tokens: SecretStr = Field(
        SecretStr(""),
        description="Entries of tokens that may read /metrics, as of `ops_tokens`; operators may, too. Its file is "
        "followed. Empty: /metrics is open.",
    )

    hash_user_ids: SecretStr = Field(
        SecretStr(""),
        description="Key with which user and session ids are hashed in Redis. Empty: they are stored as sent.",
    )
    api_rate: str = Field(
        "",
        description="Requests each API key may make, on all replicas together, as `100/second` or `5000/minute`; then "
        "429. While Redis is away each process counts by itself. Empty: as many as it likes.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API from a browser, comma separated: `https://shop.example`; "
        "never /ops, /users and /metrics. Empty: none.",
    )

    # -- pages
    playground: bool = Field(False, description="Serve /playground, where lists can be tried out.")
    openapi_pages: bool = Field(True, description="Serve /docs and /openapi.json.")

    # -- time
    deadline_ms: float = Field(80.0, gt=0, description="Time an answer may take where the request names none.")
    deadline_max_ms: float = Field(2000.0, gt=0, description="Longest budget a request may ask for.")
    fallback_reserve_ms: float = Field(
        10.0, ge=0, description="Kept back from every deadline for the item-CF and popularity rungs."
    )
    future_tolerance_s: float = Field(300.0, ge=0, description="How far in the future an event's timestamp may lie.")
    shutdown_delay_s: float = Field(
        0.0, ge=0, description="Time between /readyz failing and the listener closing, for load balancers."
    )
    drain_timeout_s: float = Field(10.0, ge=0, description="Longest wait for open requests at shutdown.")
    loop_lag_interval_ms: float = Field(20.0, gt=0, description="How often the event loop's lag is measured.")

    # -- limits
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Larger request bodies are refused with 413.")
    client_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Time a client may take to send a request, from its first byte to its last (then 408), or to take "
        "an answer (then it is cut off).",
    )
    write_behind_max: int = Field(
        4096, ge=1, description="Users whose events wait to be encoded behind the answers; more wait for a request."
    )
    catch_up_timeout_ms: float = Field(2000.0, gt=0, description="Time a history may take to be encoded.")
    cache_mib: float = Field(
        64.0, ge=0, description="Memory of the histories and states kept in each process; 0 keeps none."
    )
    state: Literal["full", "h_only"] = Field(
        "full",
        description="What is stored of an encoded history: all that adding an event needs, or only the vector to "
        "decode from. `h_only` takes a tenth of the memory, and each event encodes the history anew.",
    )

    # -- catalogue
    catalogue_updates: Path | None = Field(
        None,
        description="File of stock and new items, one JSON object a line, followed while it changes: "
        '`{"item_id": "7", "in_stock": false}`, or a new item: `{"item_id": "n1", "title": "…", "category": ["…"], '
        '"like": ["50"]}`. Replace it by renaming: a file that is being written is read as it is.',
    )

    # -- batching
    batch_max: int = Field(32, ge=1, description="Most jobs in one engine run.")
    batch_window_ms: float = Field(
        1.0,
        ge=0,
        description="Longest wait for a batch to fill while the engine is busy; none when it is idle.",
    )
    engine_threads: int = Field(
        1,
        ge=0,
        description="Threads of one engine run on a CPU; 0 takes all processors. One is best for small models, whose "
        "operators take less time than waking a thread; more workers use more processors.",
    )
    cuda_graphs: bool = Field(
        False, description="Replay each padded batch size as one CUDA graph; needs device cuda. See docs/gpu.md."
    )
    queue_max: int = Field(256, ge=1, description="Jobs that may wait; one more is refused and served one rung lower.")
    engine_stall_s: float = Field(30.0, gt=0, description="An engine run longer than this makes /readyz fail.")

    # -- Redis
    redis_url: SecretStr = Field(
        SecretStr("embedded"),
        description="`embedded` (a local Valkey server), `redis://…`, `rediss://…`, `redis+sentinel://…`, "
        "`redis+cluster://…` or `unix://…`.",
    )
    redis_prefix: str = Field("gpt4rec:", min_length=1, max_length=64, description="First part of every key.")
    redis_read_timeout_ms: float = Field(25.0, gt=0, description="Time a read may take on the hot path.")
    redis_write_timeout_ms: float = Field(250.0, gt=0, description="Time a write may take.")
    redis_durability: Literal["memory", "aof", "replica"] = Field(
        "memory",
        description="What an acknowledged event has reached: memory, the local append-only file, replicas.",
    )
    redis_replicas: int = Field(1, ge=1, description="Replicas that must acknowledge with `replica` durability.")
    redis_durability_timeout_ms: int = Field(
        1500, gt=0, description="Longest wait for that acknowledgement; after it /events answers 503."
    )
    redis_connections_max: int = Field(16, ge=1, description="Most connections to Redis.")
    data_dir: Path = Field(
        Path("data/valkey"),
        description="Folder of the embedded server's append-only file, and of the copies of what operators set "
        "(mode, model, policies), which outlive a restart while Redis is away.",
    )
    history_cap: int | None = Field(
        None,
        ge=1,
        description="Events kept of each history; never below the model's receptive field, the default.",
    )
    history_ttl_s: int = Field(7_776_000, ge=60, description="A history nobody adds to is forgotten after this.")
    state_ttl_s: int = Field(604_800, ge=60, description="An encoder state nobody renews is forgotten then.")
    signals_ttl_s: int = Field(2_592_000, ge=60, description="Searches and impressions are forgotten after this.")
    audit_cap: int = Field(1000, ge=1, description="Entries kept of the audit of /ops.")
    signals_cap: int = Field(1000, ge=1, description="Searches and impressions kept of each user.")

    # -- guard
    breaker_window_s: float = Field(5.0, gt=0, description="Model attempts younger than this are counted.")
    breaker_min_attempts: int = Field(
        50, ge=1, description="Attempts needed in a window before the breaker or a budget is judged by it."
    )
    breaker_failure_ratio: float = Field(
        0.5, gt=0, le=1, description="Share of late or failed attempts that opens the breaker."
    )
    breaker_open_s: float = Field(5.0, gt=0, description="How long the breaker stays open before it probes.")
    breaker_half_open_probes: int = Field(
        20, ge=1, description="Attempts that decide whether the model gets the next larger share of the traffic."
    )
    breaker_hold_max_s: float = Field(
        300.0, gt=0, description="Longest wait before a share that failed again and again is tried once more."
    )
    latency_budget_share: float = Field(
        0.01, gt=0, le=1, description="Share of model attempts that may be late in the long run."
    )
    error_budget_share: float = Field(
        0.01, gt=0, le=1, description="Share of model attempts that may fail in the long run."
    )
    served_budget_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Share of answers that may come from below the model; people are told, nothing is switched.",
    )
    mode_poll_ms: float = Field(
        500.0, gt=0, description="How often the mode is read where a published change was missed."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)


def secret_names() -> list[str]:
    """Settings whose value is never printed and may come from a file."""
    return [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


def secret_file(name: str) -> Path | None:
    """The file a secret setting is read from; None where it is none."""
    path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
    return Path(path) if path and name in secret_names() else None


def variable_names() -> list[str]:
    """Every environment variable the service reads."""
    plain = [PREFIX + name.upper() for name in Settings.model_fields]
    return [*plain, *(PREFIX + name.upper() + "_FILE" for name in secret_names()), *CLIENT_VARIABLES]


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `GPT4REC_<SECRET>_FILE`: the way Docker and Kubernetes mount secrets."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        path = secret_file(field_name)
        if path is None:
            return None, field_name, False
        try:
            return path.read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{PREFIX}{field_name.upper()}_FILE: cannot read {path}") from error

    def __call__(self) -> dict[str, Any]:
        values = {n: self.get_field_value(f, n)[0] for n, f in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def load(**flags: Any) -> Settings:
    """The settings from the environment, with `flags` (those that are not None) above them.

    Raises:
        SettingsError: an unknown variable, a bad value or an unreadable secret file; names the setting, never
            a secret's value.
    """
    _reject_unknown(os.environ)
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = (f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False))
        raise SettingsError("; ".join(faults)) from None
    if settings.deadline_ms > settings.deadline_max_ms:
        raise SettingsError(f"{PREFIX}DEADLINE_MS is above {PREFIX}DEADLINE_MAX_MS")
    return settings


def _variable(loc: tuple[int | str, ...]) -> str:
    return PREFIX + str(loc[0]).upper() if loc else PREFIX + "…"


def _reject_unknown(environ: Mapping[str, str]) -> None:
    known = variable_names()
    for name in sorted(n for n in environ if n.upper().startswith(PREFIX)):
        if name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            if environ[name].startswith("tcp://") or "_SERVICE_" in name.upper():
                hint = "; Kubernetes adds it for a Service of this name: set enableServiceLinks: false"
            raise SettingsError(f"unknown setting {name}{hint}")
        secret = name.upper().removesuffix("_FILE")
        if name.upper().endswith("_FILE") and environ.get(secret):
            raise SettingsError(f"{secret} and {name} are both set")
