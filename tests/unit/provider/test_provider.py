"""The provider-shaped server does what tests rely on: answers known beforehand, faults on demand, a log of every call."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.provider import KINDS, Provider, latency, provider, tokens


@pytest.fixture
async def server() -> AsyncIterator[Provider]:
    async with provider() as p:
        yield p


def body(text: str = "Where do herons nest?", **more: Any) -> dict[str, Any]:
    return {"model": "mini", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}


async def ask(server: Provider, text: str = "Where do herons nest?", **more: Any) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.post(f"{server.base_url}/chat/completions", json=body(text, **more)) as answer:
        return answer.status, await answer.json()


async def said(server: Provider, text: str = "Where do herons nest?", **more: Any) -> str:
    return (await ask(server, text, **more))[1]["choices"][0]["message"]["content"]


async def test_the_answer_follows_from_the_last_user_message(server: Provider) -> None:
    assert await said(server) == await said(server)
    assert "herons" in await said(server)
    assert await said(server) != await said(server, "Where do storks nest?")


async def test_usage_counts_the_prompt_and_the_answer(server: Provider) -> None:
    _, answer = await ask(server)
    usage = answer["usage"]
    assert usage["completion_tokens"] == tokens.count(answer["choices"][0]["message"]["content"])
    assert usage["prompt_tokens"] == tokens.prompt(body()["messages"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_max_tokens_cuts_and_says_so(server: Provider) -> None:
    _, answer = await ask(server, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_a_stop_sequence_ends_the_answer(server: Provider) -> None:
    assert (await said(server, stop=["nest"])).endswith("herons ")


async def test_json_is_answered_with_json(server: Provider) -> None:
    assert isinstance(json.loads(await said(server, response_format={"type": "json_object"})), dict)
    schema = {
        "type": "object",
        "properties": {"bird": {"type": "string"}, "legs": {"type": "integer"}, "kind": {"enum": ["wader", "owl"]}},
        "required": ["bird", "legs", "kind"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "bird", "schema": schema}}
    assert json.loads(await said(server, response_format=wanted)) == {"bird": "value", "legs": 1, "kind": "wader"}


async def test_a_tool_is_called_when_the_request_demands_it(server: Provider) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}
    _, answer = await ask(server, tools=[tool], tool_choice="required")
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"q": "value"}'}
    _, answer = await ask(server, tools=[tool], tool_choice="auto")
    assert answer["choices"][0]["message"]["content"]


STATUS = {
    "rate_limit": (429, "rate_limit_exceeded"),
    "insufficient_quota": (429, "insufficient_quota"),
    "server_error": (500, None),
    "unavailable": (503, None),
    "unauthorized": (401, "invalid_api_key"),
    "not_found": (404, "model_not_found"),
    "bad_request": (400, "invalid_value"),
    "content_policy": (400, "content_policy_violation"),
    "context": (400, "context_length_exceeded"),
    "context_window": (400, "context_length_exceeded"),
}


@pytest.mark.parametrize("kind", STATUS)
async def test_http_errors(server: Provider, kind: str) -> None:
    server.faults.add(kind)
    status, answer = await ask(server)
    assert (status, answer["error"]["code"]) == STATUS[kind]
    assert (await ask(server))[0] == 200
    assert [c.status for c in server.calls] == [STATUS[kind][0], 200]


async def test_retry_after_is_a_header(server: Provider) -> None:
    server.faults.add("rate_limit", retry_after=7)
    async with aiohttp.ClientSession() as http, http.post(f"{server.base_url}/chat/completions", json=body()) as answer:
        assert answer.headers["Retry-After"] == "7"


@pytest.mark.parametrize("kind", ["truncated", "reset"])
async def test_a_cut_connection(server: Provider, kind: str) -> None:
    server.faults.add(kind)
    with pytest.raises(aiohttp.ClientError):
        await ask(server)
    assert server.calls[0].status == 200


async def test_a_body_that_is_not_json(server: Provider) -> None:
    server.faults.add("invalid_json")
    with pytest.raises(json.JSONDecodeError):
        await ask(server)


async def test_a_client_that_hangs_up_is_in_the_log(server: Provider) -> None:
    server.faults.add("hang")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(server), 0.3)
    async with asyncio.timeout(5):
        while not server.calls[0].aborted:  # noqa: ASYNC110 -- a log has no event to wait for
            await asyncio.sleep(0.01)
    assert server.calls[0].status is None


async def test_poor_answers(server: Provider) -> None:
    for kind in ("refusal", "empty", "wrong_json"):
        server.faults.add(kind)
    server.faults.add("say", content="Yes.")
    server.faults.add("length", tokens=2)
    wanted = {"response_format": {"type": "json_object"}}
    assert (await said(server, **wanted)).startswith("I'm sorry")
    assert await said(server, **wanted) == ""
    with pytest.raises(json.JSONDecodeError):
        json.loads(await said(server, **wanted))
    assert await said(server) == "Yes."
    assert (await ask(server))[1]["choices"][0]["finish_reason"] == "length"


async def test_odd_usage(server: Provider) -> None:
    for kind in ("no_usage", "negative_usage", "absurd_usage"):
        server.faults.add(kind)
    assert "usage" not in (await ask(server))[1]
    assert (await ask(server))[1]["usage"]["prompt_tokens"] < 0
    usage = (await ask(server))[1]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"]
    server.faults.add("usage", usage={"prompt_tokens": 3, "completion_tokens": 2})
    assert (await ask(server))[1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}


async def test_a_window_overflows_by_itself() -> None:
    async with provider(windows={"mini": 60}) as server:
        assert (await ask(server, max_tokens=20))[0] == 200
        status, answer = await ask(server, max_tokens=59)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_fault_may_wait_for_its_model_or_its_prompt(server: Provider) -> None:
    server.faults.add("server_error", model="large", times=None)
    server.faults.add("unavailable", contains="storks", times=2)
    assert (await ask(server))[0] == 200
    assert [(await ask(server, model="large"))[0] for _ in range(3)] == [500] * 3
    assert [(await ask(server, "Where do storks nest?"))[0] for _ in range(3)] == [503, 503, 200]


async def test_magic_in_the_model_and_in_the_prompt(server: Provider) -> None:
    assert (await ask(server, model="mini!unavailable"))[0] == 503
    once = "[[fault:server_error times=1 model=mini]] Where do owls nest?"
    assert (await ask(server, once, model="large"))[0] == 200
    assert [(await ask(server, once))[0] for _ in range(2)] == [500, 200]


async def test_a_fault_that_does_not_exist_is_refused(server: Provider) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        server.faults.add("earthquake")
    async with aiohttp.ClientSession() as http, http.post(f"{server.url}/control/faults", json={"kind": "earthquake"}) as answer:
        assert answer.status == 400
        told = await answer.text()
    assert all(kind in told for kind in KINDS)


def test_latency_is_seeded_has_its_mean_and_its_limit() -> None:
    drawn = list(islice(latency.lognormal(0.1, 1.2, seed=7), 5000))
    assert drawn == list(islice(latency.lognormal(0.1, 1.2, seed=7), 5000))
    assert 0.09 < sum(drawn) / len(drawn) < 0.11
    assert max(drawn) <= 1.2


async def test_as_a_process_with_a_log_on_disk(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.provider", "--log", str(log), "--window", "mini=100"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    path, headers = "/v1/chat/completions", {"x-request-id": "r-1"}
    async with aiohttp.ClientSession(url) as http:
        await http.post("/control/faults", json=[{"kind": "server_error"}, {"kind": "hang"}])
        assert (await http.post(path, json=body(), headers=headers)).status == 500
        with pytest.raises(TimeoutError):
            await http.post(path, json=body(), headers=headers, timeout=aiohttp.ClientTimeout(0.5))
        calls = await (await http.get("/control/calls")).json()
    assert [(c["model"], c["max_tokens"], c["request_id"], c["status"]) for c in calls] == [("mini", 50, "r-1", s) for s in (500, None)]
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    lines = log.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["arrived", "answered", "arrived", "aborted"]
    assert not any("herons" in line for line in lines)
