"""Every setting of the service: one frozen class, read once at start-up.

The setting `deadline_ms` is read from the variable `GPT4REC_DEADLINE_MS`, or from a flag of `gpt4rec serve`; a secret
may also come from the file that `GPT4REC_…_FILE` names. An unknown `GPT4REC_…` variable is an error: a misspelt
setting must not be silently ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from service.settings.environment import file_of
from service.settings.kafka_settings import KafkaSettings
from service.settings.loop_settings import LoopSettings
from service.settings.role_settings import RoleSettings
from service.settings.sink_settings import SinkSettings

# Read by `gpt4rec ops`, not by the service. Both may run in one environment.
CLIENT_VARIABLES = ("GPT4REC_OPS_URL", "GPT4REC_OPS_TOKEN", "GPT4REC_OPS_SPACE")
DEFAULT_POLICIES = Path(__file__).resolve().parent.parent / "policies" / "default.yaml"


class Settings(RoleSettings):
    """The settings of one process. `service.settings.loader` reads them; only tests construct them directly."""

    # -- what is served, and where
    artifact: Path | None = Field(
        None,
        description="Artefact folder (`…/<model_version>/`) to serve, or a folder of artefacts, of which `latest` is "
        "served. The artefacts beside it can be activated while the service runs: see /ops/models.",
    )
    artifact_keys: Path | None = Field(
        None,
        description="File of public keys, one a line as `gpt4rec sign key` prints it. Only artefacts that one of them "
        "signed are served: at the start, by /ops/models, and as arms of experiments. It is read again for every "
        "model that is loaded. Needs `pip install 'gpt4rec[sign]'`. Empty: signatures are not asked for.",
    )
    policies: Path = Field(
        DEFAULT_POLICIES,
        description="Decoding policies file; changes are followed. Policies set by PUT /ops/policies take precedence.",
    )
    spaces: Path | None = Field(
        None,
        description="File of further spaces (shops, brands) that this deployment serves, each with its own model, "
        "keys, policies and prefix in Redis: see docs/fleet.md#spaces. Read at the start. Without it there is one "
        "space, which these settings describe.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 chooses a free one.")
    http_server: Literal["uvicorn", "granian", "hypercorn"] = Field(
        "uvicorn",
        description="The HTTP server. The others need `pip install 'gpt4rec[servers]'`, serve with one worker, and do "
        "not bound what slow or hostile clients hold: see docs/experiments.md.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes on the same port. Each has its own engine, and a port of its own above the "
        "shared one. /metrics on the shared port sums them.",
    )
    worker_timeout_s: float = Field(
        10.0,
        ge=1,
        description="With several workers, one whose event loop stands still for this long is killed and replaced.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    git_commit: str = Field("unknown", description="Commit from which the image was built; shown by /version.")

    # -- who may call
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys, separated by commas or line breaks: `name:key`, or `name:sha256:digest` as "
        "`gpt4rec keys new` prints it. With `:users` appended, the key may also read and erase users, with `:items` it "
        "may change items. Changes of the file are followed. Empty: the API is open, except /users, which requires an "
        "ops token, and changes of items, which do too.",
    )
    ops_tokens: SecretStr = Field(
        SecretStr(""),
        description="Tokens of operators: `name:token` or `name:sha256:digest`. Changes of the file are followed. "
        "Empty: /ops is off.",
    )
    metrics_tokens: SecretStr = Field(
        SecretStr(""),
        description="Tokens that may read /metrics, written as those of `ops_tokens`, which may read it too. Changes "
        "of the file are followed. Empty: /metrics is open.",
    )

    secret_trust_s: float = Field(
        300.0,
        gt=0,
        description="How long the secrets of a followed file stay in force when the file cannot be read any more (its "
        "disk hangs, it is missing). After that, until it is read again, its ops tokens open nothing and its API keys "
        "can neither read nor erase users; lists and events are answered as ever.",
    )
    hash_user_ids: SecretStr = Field(
        SecretStr(""),
        description="Key that hashes user and session ids in Redis. Empty: they are stored as sent.",
    )
    api_rate: str = Field(
        "",
        description="Rate limit of each API key over all replicas, as `100/second` or `5000/minute`; requests above it "
        "get 429. While Redis is unavailable, each process counts by itself. Empty: no limit.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API from a browser, separated by commas: `https://shop.example`. "
        "They can never call /ops, /users and /metrics. Empty: none.",
    )

    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of the proxies in front of the service, separated by commas: "
        "`10.0.0.0/8,::1`. Only from them is `X-Forwarded-Prefix` taken and, where any are named, `X-Request-Start`. "
        "Empty: `X-Request-Start` is taken from every peer, `X-Forwarded-Prefix` from none.",
    )

    # -- pages
    root_path: str = Field(
        "",
        description="Path prefix under which a proxy publishes the service, as `/shop/rec`; pages and documents link "
        "to each other below it. The proxy may remove it or leave it. Empty: none.",
    )
    playground: bool = Field(False, description="Serve /playground, a page to try out recommendations.")
    grafana_url: str = Field(
        "",
        pattern=r"^(https?://[^\s\"'<>]+)?$",
        description="Address of the Grafana dashboard, linked from the console.",
    )
    runbook_url: str = Field(
        "", pattern=r"^(https?://[^\s\"'<>]+)?$", description="Address of the runbook, linked from the console."
    )
    openapi_pages: bool = Field(True, description="Serve /docs and /openapi.json.")

    # -- time
    deadline_ms: float = Field(80.0, gt=0, description="Budget of an answer if the request does not name one.")
    deadline_max_ms: float = Field(2000.0, gt=0, description="Longest budget that a request may ask for.")
    fallback_reserve_ms: float = Field(
        10.0, ge=0, description="Part of every deadline that is reserved for the rungs below the model."
    )
    cursor_ttl_s: float = Field(
        1800.0, ge=10, le=86_400, description="How long the cursor of a page can be used; each page has a new one."
    )
    future_tolerance_s: float = Field(
        300.0, ge=0, description="How far in the future the timestamp of an event may lie."
    )
    shutdown_delay_s: float = Field(
        0.0, ge=0, description="Time between the failure of /readyz and the close of the listener, for load balancers."
    )
    drain_timeout_s: float = Field(10.0, ge=0, description="Longest wait for open requests at shutdown.")
    loop_lag_interval_ms: float = Field(
        20.0,
        gt=0,
        description="How often the lag of the event loop is measured while requests are beside each other; a fifth as "
        "often otherwise.",
    )

    # -- limits
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body; larger ones get 413.")
    receiving_mib: float = Field(
        64.0,
        gt=0,
        description="Most that each process holds of requests which are not answered yet and of answers which are not "
        "read, all connections together. Beyond it the slowest are ended (408, or closed), and if none is slow, the "
        "largest (503).",
    )
    client_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Time a client has to send a request, from its first byte to its last (then 408), and to read an "
        "answer (then the connection is closed).",
    )
    write_behind_max: int = Field(
        4096,
        ge=1,
        description="Maximum number of users whose new events wait to be encoded in the background; the rest wait for "
        "a request.",
    )
    catch_up_timeout_ms: float = Field(2000.0, gt=0, description="Longest time to encode a history.")
    cache_mib: float = Field(
        64.0, ge=0, description="Memory for cached histories and states in each process; 0 disables the cache."
    )
    answers_mib: float = Field(
        16.0,
        ge=0,
        description="Memory for lists that were made before, in each process: the same question then has the same list "
        "without a run of the model. A list takes about 2 KiB; 0 keeps none.",
    )
    state: Literal["full", "h_only"] = Field(
        "full",
        description="What is stored of an encoded history: everything needed to add an event, or only the vector to "
        "decode from. `h_only` takes a tenth of the memory, but every event encodes the whole history again.",
    )

    # -- catalogue
    catalogue_updates: Path | None = Field(
        None,
        description="File of what differs from the export, one JSON object a line: stock, "
        '`{"item_id": "7", "in_stock": false}`; fields, `{"item_id": "8", "price": 9.5, "valid_until": "…"}`; new '
        'items, `{"item_id": "n1", "title": "…", "category": ["Books > Crime"], "like": ["50"]}`. Changes are '
        "followed. Replace the file by renaming: a file that is being written "
        "may be read half-written.",
    )
    items_max: int = Field(
        100_000,
        ge=1,
        le=1_000_000,
        description="Items that may be stored over HTTP; each replica keeps a copy of them.",
    )

    # -- batching
    batch_max: int = Field(
        32,
        ge=1,
        description="Maximum number of jobs in one engine run. The lists of one `/recommend/batch` may be more.",
    )
    batch_window_ms: float = Field(
        1.0,
        ge=0,
        description="Longest wait for a batch to fill while the engine is busy; an idle engine does not wait.",
    )
    engine_threads: int = Field(
        1,
        ge=0,
        description="Threads of one engine run on a CPU; 0 uses all processors. One is best for small models, whose "
        "operators take less time than waking a thread. Use more workers to use more processors.",
    )
    cuda_graphs: bool = Field(
        False, description="Replay each padded batch size as one CUDA graph; requires device cuda. See docs/gpu.md."
    )
    queue_max: int = Field(
        256,
        ge=1,
        description="Maximum number of waiting jobs; a further one is refused, and its request is answered one rung "
        "lower.",
    )
    filters_mib: float = Field(
        128.0,
        gt=0,
        description="Memory for the masks of filters, for each model in each process; the least recently used are "
        "dropped, and built again when they are needed. One takes about 4 bytes an item.",
    )
    models_held_mib: float = Field(
        2048.0,
        ge=0,
        description="Memory for models that are held beside the one in service, for arms of experiments and the "
        "hold-out, in each process. A model that does not fit is refused.",
    )
    inflight_max: int = Field(
        64,
        ge=1,
        description="Requests of one space that may be in progress at once in each process, where there are several "
        "spaces. Beyond it, `/recommend` answers from the popular items and other routes with 429; beyond twice as "
        "many, all with 429. Probes and `/ops` do not count.",
    )
    models_mib: float = Field(
        0.0,
        ge=0,
        description="Memory for the models of all spaces together, in each process. Beyond it, the least recently used "
        "one is closed and opened again when it is asked for; until then its lists come from the rungs below, with the "
        "reason `model_evicted`. 0 sets no bound.",
    )
    filter_build_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of one processor that may go into new filters, half of it for one caller (an API key, or an "
        "address where the API is open). Beyond it, requests with a new filter are answered by the rung below the "
        "model with the reason `filter_not_ready`.",
    )
    engine_stall_s: float = Field(30.0, gt=0, description="An engine run longer than this makes /readyz fail.")

    # -- Redis
    redis_url: SecretStr = Field(
        SecretStr("embedded"),
        description="`embedded` (a local Valkey server), `redis://…`, `rediss://…`, `redis+sentinel://…`, "
        "`redis+cluster://…` or `unix://…`.",
    )
    redis_prefix: str = Field("gpt4rec:", min_length=1, max_length=64, description="Prefix of every key.")
    redis_read_timeout_ms: float = Field(25.0, gt=0, description="Time-out of a read on the hot path.")
    redis_write_timeout_ms: float = Field(250.0, gt=0, description="Time-out of a write.")
    redis_durability: Literal["memory", "aof", "replica"] = Field(
        "memory",
        description="Where an event is stored before it is acknowledged: memory, the local append-only file, replicas.",
    )
    redis_replicas: int = Field(
        1, ge=1, description="Replicas that must acknowledge a write with durability `replica`."
    )
    redis_durability_timeout_ms: int = Field(
        1500, gt=0, description="Longest wait for that acknowledgement; then /events answers 503."
    )
    redis_connections_max: int = Field(16, ge=1, description="Most connections to Redis.")
    data_dir: Path = Field(
        Path("data/valkey"),
        description="Folder of the append-only file of the embedded server, and of local copies of the shared values "
        "(mode, model, policies), which are used if the service restarts while Redis is unavailable.",
    )
    history_cap: int | None = Field(
        None,
        ge=1,
        description="Events kept of each history; at least the receptive field of the model, which is the default.",
    )
    history_searches: bool = Field(
        False,
        description="Whether searches without an item are kept in the history, up to 200 characters of each, for "
        "models that read queries. They take places of the history (GPT4REC_HISTORY_CAP). Switch it on when every "
        "replica has a version with this setting: others cannot read such a history.",
    )
    history_sessions: bool = Field(
        False,
        description="Whether the history keeps a mark of the session of each event, 8 hex digits of a hash of its "
        "`session_id`, for models that read sessions (`network.session_ids`). Switch it on when every replica has a "
        "version with this setting: others cannot read such a history. Events that were stored before have none.",
    )
    seen_max: int = Field(
        1000,
        ge=0,
        le=10_000,
        description="Items remembered of each user beyond the history, so that they stay out of lists: the most "
        "recently seen ones, with how often and when last. Redis keeps up to a quarter more, each with its id, 9 bytes "
        "and its count where that is above 1. 0 remembers none.",
    )
    history_ttl_s: int = Field(7_776_000, ge=60, description="A history without new events is deleted after this time.")
    state_ttl_s: int = Field(
        604_800, ge=60, description="An encoder state that is not renewed is deleted after this time."
    )
    signals_ttl_s: int = Field(2_592_000, ge=60, description="Searches and impressions are deleted after this time.")
    audit_cap: int = Field(1000, ge=1, description="Entries kept in the audit of /ops.")
    signals_cap: int = Field(1000, ge=1, description="Searches and impressions kept for each user.")

    # -- the order of lists
    order_first: int = Field(
        10,
        ge=0,
        le=20,
        description="How many items from the top of a model's list are put into the order that is expected to earn "
        "most, where the artefact has an order model; 0 for none. Policies can switch it off for a segment.",
    )

    # -- what is recorded
    exposures: bool = Field(
        True,
        description="Record the lists that are shown and the events that follow, in streams of Redis that other "
        "programs read. See docs/loop.md.",
    )
    exposures_share: float = Field(
        1.0, ge=0, le=1, description="Share of the lists that are recorded, chosen by their id. Events always are."
    )
    exposures_shards: int = Field(
        8, ge=1, le=256, description="Shards of each stream; in a cluster each may be on another server."
    )
    exposures_cap: int = Field(
        10_000,
        ge=1,
        description="Entries that each shard keeps, of lists and of events. A list of ten items takes about 1.2 kB, "
        "and 1 kB more if it was drawn.",
    )
    exposures_queue_max: int = Field(
        4096,
        ge=1,
        description="Lists that may wait in each process to be written, and as many events; further ones are not "
        "recorded, and counted as dropped.",
    )

    watch: bool = Field(
        True,
        description="Watch what lists and traffic are like, by hour and day, and whether they drift from what the "
        "model was made on. See docs/loop.md.",
    )

    # -- traces
    traces: str = Field(
        "",
        pattern=r"^(environment|https?://[^\s@?#]+)?$",
        description="Where spans of requests are sent, with OTLP over HTTP: the URL of a collector, as "
        "`http://collector:4318/v1/traces`, or `environment` for that of the variables `OTEL_EXPORTER_OTLP_…`. Needs "
        "`pip install 'gpt4rec[otel]'`. Empty: no traces. See docs/fleet.md.",
    )
    traces_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the traces beginning here that are kept. One that a caller begins, by `traceparent`, is "
        "kept if the caller keeps it.",
    )

    # -- guard
    breaker_window_s: float = Field(
        5.0, gt=0, description="Length of the window over which model attempts are counted."
    )
    breaker_min_attempts: int = Field(
        50, ge=1, description="Attempts a window must hold before the breaker or a budget acts on it."
    )
    breaker_failure_ratio: float = Field(
        0.5, gt=0, le=1, description="Share of late or failed attempts that opens the breaker."
    )
    breaker_open_s: float = Field(5.0, gt=0, description="How long the breaker stays open before it sends probes.")
    breaker_half_open_probes: int = Field(
        20, ge=1, description="Attempts that decide whether the model gets the next larger share of the traffic."
    )
    breaker_hold_max_s: float = Field(
        300.0, gt=0, description="Longest wait before a share of the traffic that failed repeatedly is tried again."
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
        description="Share of answers that may come from below the model. It raises an alert, but switches nothing.",
    )
    mode_poll_ms: float = Field(
        500.0, gt=0, description="How often the mode is read, in case a published change was missed."
    )


def secret_file(name: str) -> Path | None:
    """Returns the file that a secret setting is read from, None if it does not come from a file."""
    return file_of(name) if name in Settings.secret_names() else None


def variable_names() -> list[str]:
    """Returns every environment variable that the service and its other commands read."""
    of_all = (Settings, KafkaSettings, SinkSettings, LoopSettings)
    return [*(name for settings in of_all for name in settings.variable_names()), *CLIENT_VARIABLES]
