"""The settings of Kafka: `GPT4REC_KAFKA_…`. `gpt4rec ingest kafka` reads them beside the settings of the service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from service.settings.environment import EnvironmentSettings

_DEAD_LETTERS = "-dead-letters"


class KafkaSettings(EnvironmentSettings):
    """How to reach the brokers, what to read, and how much at once."""

    kafka_brokers: str = Field("", description="Brokers to begin with, separated by commas: `host:9092`. Required.")
    kafka_topic: str = Field("gpt4rec-events", min_length=1, max_length=249, description="Topic of the events.")
    kafka_group: str = Field("gpt4rec", min_length=1, max_length=255, description="Consumer group.")
    kafka_start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a group that has committed nothing begins."
    )
    kafka_dead_letter_topic: str = Field(
        "", max_length=249, description="Topic of messages that no event can be made of. Empty: `<topic>-dead-letters`."
    )
    kafka_exposures_topic: str = Field(
        "", max_length=249, description="Compacted topic that `gpt4rec loop sink` copies exposures to. Empty: none."
    )
    kafka_batch_max: int = Field(500, ge=1, le=100_000, description="Most messages that are stored together.")
    kafka_batch_kib: int = Field(
        4096,
        ge=1,
        description="Most bytes of messages that are stored together; a batch ends with the message that exceeds it. "
        "Twice as many wait in the client.",
    )
    kafka_batch_wait_ms: float = Field(
        5.0, ge=0, description="Longest wait for a batch to fill, from its first message on."
    )
    kafka_commit_interval_ms: int = Field(
        1000, ge=10, description="How often the offsets of stored messages are committed."
    )
    kafka_delivery_timeout_ms: int = Field(
        30_000, ge=100, description="Longest wait until a broker confirms what is written to a topic."
    )
    kafka_metrics_host: str = Field("127.0.0.1", description="Address of /metrics and /healthz of `ingest`.")
    kafka_metrics_port: int = Field(
        8010, ge=0, le=65535, description="Port of /metrics and /healthz of `ingest`; 0 chooses a free one."
    )
    kafka_options: str = Field(
        "",
        description="Options of librdkafka, such as `security.protocol=SASL_SSL`, separated by line breaks or, on one "
        "line, by commas. Unknown ones, and those that `ingest` sets itself, are refused.",
    )
    kafka_secret_options: SecretStr = Field(
        SecretStr(""), description="Options that are secret, such as `sasl.password=…`, written in the same way."
    )

    @property
    def dead_letter_topic(self) -> str:
        """The topic of messages that no event can be made of."""
        return self.kafka_dead_letter_topic or self.kafka_topic + _DEAD_LETTERS
