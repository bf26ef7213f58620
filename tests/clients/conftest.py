"""Tests that `make clients` runs beside the service that it starts (`tests/support/client_service.py`)."""

import os

from tests.support.browser import browser

__all__ = ["browser"]

collect_ignore_glob = [] if "GPT4REC_URL" in os.environ else ["test_*.py"]
