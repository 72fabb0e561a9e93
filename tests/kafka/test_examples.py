"""The examples of the README and of docs/publish.md, run as they stand but for the address and the topics' prefix."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

ROOT = Path(__file__).parents[2]


async def run_example(page: str, fleet: Fleet) -> str:
    """What the first Python block of the page prints."""
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)[0]
    code = code.replace("localhost:9092", fleet.broker.bootstrap).replace('"llm.', f'"{fleet.prefix}')
    example = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, errors = await example.communicate()
    assert example.returncode == 0, errors.decode()
    return printed.decode()


async def test_the_readme_publishes_a_request(calm_fleet: Fleet) -> None:
    async with Topics(calm_fleet) as topics:
        await run_example("README.md", calm_fleet)
        answers = await topics.answers([{"tenant": "acme", "request_id": "readme-1"}])
    assert answers["readme-1"]["status"] == "answered"


async def test_the_guide_waits_for_its_answer(calm_fleet: Fleet) -> None:
    printed = await run_example("docs/publish.md", calm_fleet)
    status, source, cost, *_content = printed.split()
    assert (status, source) in {("answered", "model"), ("answered", "cache_exact")}
    assert float(cost) >= 0
