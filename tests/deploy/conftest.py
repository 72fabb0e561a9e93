"""When a test with a fleet fails, the ends of its logs are shown."""

from __future__ import annotations

from tests.kafka.conftest import pytest_runtest_makereport as pytest_runtest_makereport
