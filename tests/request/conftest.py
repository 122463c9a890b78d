"""Fixtures for the tests of requests: the log."""

from __future__ import annotations

import logging

import pytest
from support.log_events import LOGGER


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, LOGGER)
    return caplog
