"""The stage `call` on each database, through real LiteLLM, against the provider-shaped server."""

from __future__ import annotations

import pytest

from tests.provider import Provider
from tests.unit.call.build import policy
from tests.unit.call.conftest import client as client
from tests.unit.call.conftest import litellm_client as litellm_client
from tests.unit.call.conftest import server as server
from tests.unit.call.stage import Stage
from workers.call.provider import Client
from workers.ledger.ledger import Ledger


@pytest.fixture
def stage(client: Client, ledger: Ledger, server: Provider) -> Stage:
    return Stage(client, ledger, policy(server.base_url))
