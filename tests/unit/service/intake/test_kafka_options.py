"""Options of librdkafka: passed on by name, refused where a promise depends on them, secret ones from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.common.errors import SettingsError
from service.intake.kafka_options import consumer_options, producer_options
from service.settings.loader import load, load_exposures_topic, load_kafka


def test_options_are_passed_on_by_name_each_to_the_client_that_knows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sasl.username=me\nsasl.password=a,b=c\n", encoding="utf-8")
    monkeypatch.setenv("GPT4REC_KAFKA_SECRET_OPTIONS_FILE", str(secret))
    monkeypatch.setenv("GPT4REC_KAFKA_OPTIONS", "security.protocol=SASL_SSL, fetch.wait.max.ms=50,linger.ms=1")
    settings = load_kafka(kafka_brokers="one:9092,two:9092")
    for options in (consumer_options(settings), producer_options(settings)):
        assert options["security.protocol"] == "SASL_SSL"
        assert options["sasl.password"] == "a,b=c"
        assert options["bootstrap.servers"] == "one:9092,two:9092"
    assert consumer_options(settings)["fetch.wait.max.ms"] == "50"
    assert "fetch.wait.max.ms" not in producer_options(settings)
    assert producer_options(settings)["linger.ms"] == "1"
    assert "linger.ms" not in consumer_options(settings)
    assert "a,b=c" not in repr(settings)
    load()  # the service starts in the same environment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("enable.auto.offset.store=true", "enable.auto.offset.store cannot be set here"),
        ("acks=0", "acks cannot be set here"),
        ("group.id=x", "use GPT4REC_KAFKA_GROUP"),
        ("linger.ms", "name=value"),
        ("=1", "name=value"),
    ],
)
def test_options_that_a_promise_depends_on_are_refused(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT4REC_KAFKA_OPTIONS", text)
    for options in (consumer_options, producer_options):
        with pytest.raises(SettingsError, match=said):
            options(load_kafka(kafka_brokers="one:9092"))


def test_an_intake_without_brokers_and_a_misspelt_setting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="KAFKA_BROKERS"):
        load_kafka()
    monkeypatch.setenv("GPT4REC_KAFKA_TOPICS", "x")
    with pytest.raises(SettingsError, match="did you mean GPT4REC_KAFKA_TOPIC"):
        load_kafka(kafka_brokers="one:9092")


def test_exposures_go_to_a_topic_only_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_exposures_topic() is None
    monkeypatch.setenv("GPT4REC_KAFKA_EXPOSURES_TOPIC", "shown")
    with pytest.raises(SettingsError, match="KAFKA_BROKERS"):
        load_exposures_topic()
    monkeypatch.setenv("GPT4REC_KAFKA_BROKERS", "one:9092")
    found = load_exposures_topic()
    assert found is not None
    assert found.kafka_exposures_topic == "shown"
