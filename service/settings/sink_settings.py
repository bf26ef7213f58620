"""The settings of the sink: `GPT4REC_SINK_…`. `gpt4rec loop sink` reads them beside the settings of the service."""

from __future__ import annotations

from pydantic import Field

from service.settings.environment import EnvironmentSettings


class SinkSettings(EnvironmentSettings):
    """Where the log is written, how much at once, and how long it is kept."""

    sink_log: str = Field("", description="Folder of the log, or a URL that fsspec knows. Required.")
    sink_batch_max: int = Field(20_000, ge=1, le=1_000_000, description="Most entries that are written together.")
    sink_batch_kib: int = Field(
        65_536,
        ge=1,
        description="Bytes of entries that are written together; what was read with the last of them may exceed it.",
    )
    sink_batch_s: float = Field(
        60.0, gt=0, le=3600, description="Longest time that an entry waits for others to be written with it."
    )
    sink_retention_days: int = Field(
        90, ge=0, description="Days after which hours of the log are deleted, erasures excepted. 0 keeps everything."
    )
    sink_erase_hours: float = Field(
        6.0, gt=0, le=18, description="How often files are rewritten without the subjects that were erased."
    )
    sink_lease_s: float = Field(
        30.0, ge=1, le=600, description="How long another sink waits for one that is silent, before it takes over."
    )
    sink_open_lists: int = Field(
        200_000, ge=1, description="Lists that live outcomes may still be joined to; older ones are left to `report`."
    )
    sink_open_hours: float = Field(
        24.0, gt=0, le=168, description="How long live outcomes may still be joined to a list."
    )
    sink_metrics_host: str = Field("127.0.0.1", description="Address of /metrics and /healthz of the sink.")
    sink_metrics_port: int = Field(
        8011, ge=0, le=65535, description="Port of /metrics and /healthz of the sink; 0 chooses a free one."
    )
