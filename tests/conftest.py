"""Fixtures shared by all tests."""

import logging
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

import model  # noqa: F401 - first of all: it sets how OpenMP threads wait, before torch is loaded
from tests.support.shared_artifacts import grown_run, random_artifact, tiny_baseline, tiny_log, two_versions
from tests.support.torch_threads import one_thread
from tests.support.valkey import shared_valkey, valkey

__all__ = [
    "grown_run",
    "one_thread",
    "random_artifact",
    "shared_valkey",
    "tiny_baseline",
    "tiny_log",
    "two_versions",
    "valkey",
]

# No test asserts speed: on a busy machine an example, or the making of one, takes as long as it takes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A service that is started under `nohup` ignores SIGHUP, and so would those that the tests start and stop with it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that runs inside a test writes its log to the test's streams, which are closed behind it."""
    configured, before = structlog.is_configured(), structlog.get_config()
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    yield
    if structlog.get_config() != before:
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
        logging.getLogger().handlers = handlers
        logging.getLogger().setLevel(level)
