"""The pipeline, whole, on the in-memory broker and on the session's real one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.pipeline import driver as drivers
from tests.pipeline.driver import Driver
from tests.provider.server import Provider, provider
from workers.encoder.bundled import bundled
from workers.ledger.migrate import upgrade
from workers.settings import Attribute, Http, Kafka, Ledger, Settings

POLICY = """
models:
  mini:   {{litellm: openai/mini, api_base: "{url}", context: 8000, price: {{input: 0.15, cached_input: 0.075, output: 0.60}}}}
  middle: {{litellm: openai/middle, api_base: "{url}", context: 16000, price: {{input: 2.50, cached_input: 1.25, output: 10.00}}}}
  spare:  {{litellm: openai/spare, api_base: "{url}", context: 16000, price: {{input: 3.00, output: 15.00}}}}
  large:  {{litellm: openai/large, api_base: "{url}", context: 128000, price: {{input: 5.00, cached_input: 0.50, output: 25.00}}}}
  odd:    {{litellm: openai/nobody-knows-its-price, api_base: "{url}", context: 8000}}
tiers: {{light: [mini], standard: [middle, spare], heavy: [large]}}
reference: large
defaults:
  max_tokens: {{light: 60, standard: 90, heavy: 120}}
  max_tokens_cap: {{light: 100, standard: 200, heavy: 300}}
features:
  terse: {{instruction: "Answer in one sentence.", stop: ["\\n\\n"]}}
  flat: {{cascade: false}}
budgets:
  - {{scope: {{tenant: broke}}, window: day, limit_usd: 0.0000001, on_exceed: reject}}
  - {{scope: {{tenant: "*", experiment: capped}}, window: day, limit_tokens: 50, on_exceed: reject}}
tenants: {{unknown: allow}}
"""


@dataclass
class Pipeline:
    driver: Driver
    provider: Provider


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "kafka"])
async def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    folder: Path = tmp_path_factory.mktemp("pipeline")
    name = uuid.uuid4().hex[:8]
    options = {"topic_prefix": f"p{name}.", "group_prefix": f"p{name}.", "partitions": 2, "heartbeat_interval_ms": 500}
    if request.param == "kafka":
        broker = request.getfixturevalue("kafka")
        options |= {"bootstrap_servers": broker.bootstrap, "idempotence": broker.idempotence}
    async with provider() as server:
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(url=server.base_url))
        ledger = Ledger(url=f"sqlite+aiosqlite:///{folder}/ledger.db")
        await upgrade(ledger.url)
        attribute = Attribute(sweep_s=0.5)
        settings = Settings(kafka=Kafka(**options), ledger=ledger, policy_file=policy, http=Http(port=0), attribute=attribute)
        async with getattr(drivers, request.param)(settings, bundled()) as driver:
            yield Pipeline(driver, server)
