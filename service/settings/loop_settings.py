"""The settings of the loop: `GPT4REC_LOOP_…`. `gpt4rec loop run` reads them; its commands read those of their own."""

from __future__ import annotations

from pydantic import Field

from service.settings.environment import EnvironmentSettings


class LoopSettings(EnvironmentSettings):
    """What is learned from, when, how a candidate is tried, and what is kept."""

    loop_work: str = Field("", description="Folder of the cycles and their journal. Required.")
    loop_log: str = Field("", description="Folder of the log, or a URL that fsspec knows. Required.")
    loop_artifacts: str = Field("", description="Folder of artefacts that the service serves a version of. Required.")
    loop_run: str = Field(
        "", description="Training run of the model in service, for the first cycle; later ones know their own."
    )
    loop_data: str = Field("", description="Data set of that run, if it has moved since the training.")
    loop_increment_minutes: float = Field(
        60.0, gt=0, le=10_080, description="Minutes from one increment to the next. Times count from midnight, UTC."
    )
    loop_full_at: str = Field(
        "03:00", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|never)$",
        description="Time of day, UTC, of the daily full training; `never` for none.",
    )  # fmt: skip
    loop_events_min: int = Field(
        500, ge=0, description="New events that a cycle needs; with fewer, it ends as `skipped`."
    )
    loop_attempts: int = Field(3, ge=1, le=100, description="Times that a step is tried before the cycle has failed.")
    loop_retry_s: float = Field(
        60.0, gt=0, le=3600, description="Pause after the first attempt; it doubles with each further one."
    )
    loop_sink: bool = Field(
        True,
        description="Whether a cycle begins with `gpt4rec loop sink --once`. False where a sink runs all the time.",
    )
    loop_sink_minutes: float = Field(
        10.0, gt=0, description="Time for that; then the cycle goes on with the log as it is."
    )
    loop_increment_args: str = Field(
        "", description="More arguments of `gpt4rec train --init`, such as `--keep-encoder --max-minutes 10`."
    )
    loop_full_args: str = Field(
        "",
        description="More arguments of the full `gpt4rec train`. Without `--config` among them, it has the settings of "
        "the first run.",
    )
    loop_export_args: str = Field("", description="More arguments of `gpt4rec export`.")
    loop_gate_args: str = Field("", description="More arguments of `gpt4rec gate`, such as `--quality-loss 0.01`.")
    loop_canary: bool = Field(
        True, description="Whether a candidate is tried on a part of the users. False: the gate alone decides."
    )
    loop_canary_steps: str = Field(
        "0.05,0.25,1", pattern=r"^[0-9.]+(,[0-9.]+)*$",
        description="Portions of both arms that are let in, step by step.",
    )  # fmt: skip
    loop_canary_lists: int = Field(
        1000, ge=1, description="Lists of each arm in a step before the next one, and after the last before promotion."
    )
    loop_canary_clicked: int = Field(
        50, ge=0,
        description="Clicked lists of each arm, as the sink joined them, before promotion. 0: promotes without, too.",
    )  # fmt: skip
    loop_canary_share: float = Field(1.0, gt=0, le=1, description="Share of the layer that the canary is on.")
    loop_canary_layer: str = Field("default", description="Layer of the canary.")
    loop_canary_hours: float = Field(
        6.0, gt=0, le=720, description="Time for the canary; what is not decided then goes back as `timed_out`."
    )
    loop_poll_s: float = Field(15.0, gt=0, le=600, description="Time between two looks at the canary.")
    loop_cycles_kept: int = Field(
        5, ge=1, description="Newest cycles whose runs and candidates are kept, beside those still needed."
    )
    loop_journal_kept: int = Field(500, ge=10, description="Newest cycles that the journal keeps.")
    loop_token_file: str = Field(
        "", description="File with an ops token, `TOKEN` or `NAME:TOKEN`, where GPT4REC_OPS_TOKEN is not set."
    )
    loop_metrics_host: str = Field("127.0.0.1", description="Address of /metrics and /healthz of the loop.")
    loop_metrics_port: int = Field(
        8012, ge=0, le=65535, description="Port of /metrics and /healthz of the loop; 0 chooses a free one."
    )

    @property
    def steps(self) -> list[float]:
        """The portions of the canary."""
        return [float(step) for step in self.loop_canary_steps.split(",")]
