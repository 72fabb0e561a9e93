"""One call is one request on the wire, and every way it can go wrong has its word. Real LiteLLM, real HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

import workers.call.chat
from schemas import Message, Params, Prompt
from tests.provider import Provider
from workers.call.failures import Failure
from workers.call.provider import Client, Reply
from workers.ledger.types import Answer
from workers.policy import Model

Ask = Callable[..., Awaitable[Reply | Failure]]
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning")  # LiteLLM's own types of Gemini, at their first use
SECRET = "the-heron-keeps-a-secret"


@pytest.fixture
def ask(client: Client, server: Provider) -> Ask:
    async def ask(model: str = "openai/mini", **params: Any) -> Reply | Failure:
        return await client.complete(
            Model(litellm=model, api_base=server.base_url, context=8000),
            Prompt(messages=(Message(role="user", content=f"How tall is {SECRET}?"),), params=Params(**params)),
            max_tokens=40,
            api_key=None,
            timeout_s=2,
        )

    return ask


async def test_an_answer_and_its_usage(ask: Ask, server: Provider) -> None:
    got = await ask()
    assert isinstance(got, Reply)
    assert got.answer.finish_reason == "stop"
    assert SECRET in (got.answer.content or "")
    assert not got.estimated
    billed = server.calls[0].usage
    assert billed is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (billed["prompt_tokens"], billed["completion_tokens"])


async def test_half_of_an_emoji_is_replaced(ask: Ask, server: Provider) -> None:
    """Where the limit cut it: no event can carry it, and a stage that cannot publish its outcome would stop."""
    server.faults.add("say", content="A heron \U0001f426, and half of one \ud83d")
    got = await ask()
    assert isinstance(got, Reply)
    assert got.answer.content == "A heron \U0001f426, and half of one \ufffd"


async def test_every_call_names_max_tokens_and_what_the_request_asked(ask: Ask, server: Provider) -> None:
    await ask(temperature=0, stop="###", seed=7, response_format={"type": "json_object"}, max_tokens=3000, max_completion_tokens=2000)
    body = server.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["seed"], body["stop"]) == (40, 0, 7, ["###"])
    assert body["response_format"] == {"type": "json_object"}
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "seed", "stop", "response_format"}


async def test_tool_calls(ask: Ask) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}
    got = await ask(tools=(tool,), tool_choice="required")
    assert isinstance(got, Reply)
    assert got.answer.tool_calls is not None
    assert got.answer.tool_calls[0]["function"] == {"name": "look_up", "arguments": '{"q": "value"}'}
    assert got.answer.finish_reason == "tool_calls"


FAILURES = {
    "rate_limit": Failure("error", "rate_limited", "answered", 3.0),
    "insufficient_quota": Failure("error", "no_credit", "answered"),
    "server_error": Failure("error", "server_error", "answered"),
    "unavailable": Failure("error", "overloaded", "answered"),
    "unauthorized": Failure("error", "unauthorized", "answered"),
    "not_found": Failure("error", "not_found", "answered"),
    "bad_request": Failure("error", "bad_request", "answered"),
    "content_policy": Failure("error", "content_policy", "answered"),
    "context": Failure("context", "context", "answered"),
    "context_window": Failure("context", "context", "answered"),
    "truncated": Failure("error", "broken", "unknown"),
    "reset": Failure("error", "broken", "unknown"),
    "invalid_json": Failure("error", "broken", "unknown"),
    "hang": Failure("error", "timeout", "unknown"),
    "drip": Failure("error", "timeout", "unknown"),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_failures(ask: Ask, server: Provider, kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    server.faults.add(kind, retry_after=3)
    with caplog.at_level(logging.DEBUG):
        assert await ask() == FAILURES[kind]
    assert len(server.calls) == 1
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", sorted(FAILURES.keys() - {"hang", "drip"}))  # they take all of their time
async def test_failures_on_the_long_way(ask: Ask, server: Provider, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no plain chat goes through LiteLLM, and is one request on the wire as well."""
    monkeypatch.setattr("workers.call.provider._plain", lambda *_: False)
    server.faults.add(kind, retry_after=3)
    assert await ask() == FAILURES[kind]
    assert len(server.calls) == 1


def test_which_failures_may_pass() -> None:
    assert {k for k, f in FAILURES.items() if f.transient} == {
        *("rate_limit", "server_error", "unavailable", "truncated", "reset", "invalid_json", "hang", "drip")
    }


async def test_nobody_listens(client: Client, unused_tcp_port: int) -> None:
    model = Model(litellm="openai/mini", api_base=f"http://127.0.0.1:{unused_tcp_port}/v1", context=8000)
    got = await client.complete(model, PROMPT, max_tokens=9, api_key=None, timeout_s=5)
    assert got == Failure("error", "unreachable", "no")


@pytest.mark.parametrize("kind", ["no_usage", "negative_usage", "absurd_usage"])
async def test_odd_usage_is_replaced_by_our_own_count(ask: Ask, server: Provider, kind: str) -> None:
    server.faults.add(kind)
    got = await ask()
    assert isinstance(got, Reply)
    assert got.estimated
    assert 5 < got.usage.input_tokens < 40
    assert 5 < got.usage.output_tokens < 40


async def test_the_key_is_the_policys_and_only_the_policys(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({}, status=500)

    async with listening(handle) as base:
        mine = Model(litellm="openai/mini", api_base=base, context=8000, api_key_env="MINE")
        await client.complete(mine, PROMPT, max_tokens=9, api_key="sk-mine", timeout_s=5)
        await client.complete(mine.model_copy(update={"api_key_env": None}), PROMPT, max_tokens=9, api_key=None, timeout_s=5)
        assert await client.complete(mine, PROMPT, max_tokens=9, api_key=None, timeout_s=5) == Failure("error", "no_key", "no")
    assert seen == ["Bearer sk-mine", "Bearer unused"]


async def test_connections_are_reused(ask: Ask, server: Provider) -> None:
    for _ in range(4):
        await ask()
    assert len({c.connection for c in server.calls}) == 1


async def test_a_cancelled_call_stays_cancelled(ask: Ask, server: Provider) -> None:
    server.faults.add("hang")
    task = asyncio.ensure_future(ask())
    while not len(server.calls):  # noqa: ASYNC110 -- a log has no event to wait for
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(server.calls) == 1


async def test_the_policys_stops_and_instruction(client: Client, server: Provider) -> None:
    model = Model(litellm="openai/mini", api_base=server.base_url, context=8000)

    async def sent(**params: Any) -> dict[str, Any]:
        prompt = Prompt(messages=PROMPT.messages, params=Params(**params))
        await client.complete(model, prompt, max_tokens=9, stop=("\n\n", "b"), instruction="Be brief.", api_key=None, timeout_s=5)
        return server.bodies[-1]

    body = await sent(stop=("a", "b", "c"))
    assert body["stop"] == ["a", "b", "c", "\n\n"]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "stop" not in await sent(response_format={"type": "json_object"})


PLAIN: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.2, "top_p": 0.5, "seed": 7, "presence_penalty": 1.0, "frequency_penalty": -1.0, "stop": ("#", "\n")},
    {"temperature": 1},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}},
)


@pytest.mark.parametrize("params", PLAIN, ids=lambda params: "-".join(params) or "none")
@pytest.mark.parametrize("model", ["mini", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5-mini", "gpt-5.1", "o3-mini", "Qwen/Qwen3-4B"])
async def test_the_short_way_sends_what_the_long_one_does(
    model: str, params: dict[str, Any], client: Client, server: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Model(litellm=f"openai/{model}", api_base=server.base_url, context=8000)
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="How tall is a heron?"),
        Message(role="assistant", content="One metre."),
        Message(role="user", content="And an egret?"),
    )
    got = []
    for long in (False, True):
        if long:
            monkeypatch.setattr("workers.call.provider._plain", lambda *_: False)
        prompt = Prompt(messages=turns, params=Params(**params))
        got.append(await client.complete(known, prompt, max_tokens=9, api_key="sk-mine", timeout_s=5))
    assert got[0] == got[1]
    if model.startswith("gpt-5") and "stop" in params:
        assert got[0] == Failure("error", "unsupported", "no")
    else:
        assert isinstance(got[0], Reply)
        assert server.bodies[0] == server.bodies[1]


async def test_both_ways_go_to_openai_itself_where_the_policy_names_no_address(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    urls = []

    async def request(_: object, _method: str, url: object, **__: object) -> None:
        urls.append(str(url))
        raise Seen

    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("aiohttp.ClientSession._request", request)
    for long in (False, True):
        if long:
            monkeypatch.setattr("workers.call.provider._plain", lambda *_: False)
        got = await client.complete(Model(litellm="openai/gpt-4o-mini", context=8000), PROMPT, max_tokens=9, api_key="sk-mine", timeout_s=5)
        assert isinstance(got, Failure)
    assert urls == ["https://api.openai.com/v1/chat/completions"] * 2


@pytest.mark.parametrize("around", [False, True])
async def test_the_short_way_takes_the_proxy_of_the_environment(
    client: Client, server: Provider, monkeypatch: pytest.MonkeyPatch, *, around: bool
) -> None:
    workers.call.chat._proxy.cache_clear()
    monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "models.invalid" if around else "")
    model = Model(litellm="openai/mini", api_base="http://models.invalid/v1", context=8000)
    got = await client.complete(model, PROMPT, max_tokens=9, api_key="sk-mine", timeout_s=5)
    workers.call.chat._proxy.cache_clear()
    assert (type(got), len(server.calls)) == ((Failure, 0) if around else (Reply, 1))


async def test_a_proxy_that_opens_no_tunnel(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has left: such a call costs nothing."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    workers.call.chat._proxy.cache_clear()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        model = Model(litellm="openai/mini", api_base="https://models.invalid/v1", context=8000)
        got = await client.complete(model, PROMPT, max_tokens=9, api_key="sk-mine", timeout_s=5)
    workers.call.chat._proxy.cache_clear()
    assert got == Failure("error", "unreachable", "no")


async def test_a_proxy_with_a_password_gets_it(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Proxy-Authorization"), request.headers["Authorization"]))
        return web.json_response({}, status=500)

    async with listening(handle) as url:
        workers.call.chat._proxy.cache_clear()
        monkeypatch.setenv("http_proxy", url.replace("//", "//heron:wade@"))
        monkeypatch.setenv("no_proxy", "")
        model = Model(litellm="openai/mini", api_base="http://models.invalid/v1", context=8000)
        await client.complete(model, PROMPT, max_tokens=9, api_key="sk-mine", timeout_s=5)
        workers.call.chat._proxy.cache_clear()
    assert seen == [("Basic aGVyb246d2FkZQ==", "Bearer sk-mine")]


async def test_the_short_way_reads_an_answer_that_is_compressed_on_the_wire(client: Client) -> None:
    said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Tall."}}

    async def zipped(request: web.Request) -> web.Response:
        answer = web.json_response({"id": "1", "object": "chat.completion", "created": 1, "model": "mini", "choices": [said]})
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    async with listening(zipped) as url:
        got = await client.complete(
            Model(litellm="openai/mini", api_base=f"{url}/v1", context=8000), PROMPT, max_tokens=9, api_key=None, timeout_s=5
        )
    assert isinstance(got, Reply)
    assert got.answer.content == "Tall."


# ---- other providers, as LiteLLM speaks to them

PROMPT = Prompt(messages=(Message(role="user", content="How tall is a heron?"),))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class listening:  # noqa: N801 -- reads as what it is
    def __init__(self, handle: Handler) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def answered(client: Client, model: str, status: int, body: Any, headers: dict[str, str] | None = None, **params: Any) -> Any:
    calls = 0

    async def handle(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response(body, status=status, headers=headers)

    async with listening(handle) as base:
        prompt = Prompt(messages=PROMPT.messages, params=Params(**params))
        got = await client.complete(Model(litellm=model, api_base=base, context=8000), prompt, max_tokens=9, api_key="k", timeout_s=5)
    assert calls == (0 if isinstance(got, Failure) and got.sent == "no" else 1)
    return got


CLAUDE, GEMINI = "anthropic/claude-opus-4-6", "gemini/gemini-2.5-pro"
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"}
TOO_LONG = "The input token count (9) exceeds the maximum number of tokens allowed (3)."


def claude_error(kind: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def gemini_error(code: int, status: str, message: str = "no", *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


async def test_anthropics_usage_is_made_inclusive(client: Client) -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7}
    said = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [{"type": "text", "text": "98 cm"}]}
    got = await answered(client, CLAUDE, 200, said | {"stop_reason": "end_turn", "usage": usage})
    assert got.answer == Answer("98 cm", None, "stop")
    assert (got.usage.input_tokens, got.usage.cached_input_tokens, got.usage.cache_write_tokens, got.usage.output_tokens) == (22, 5, 7, 3)


REFUSED: dict[str, tuple[str, int, Any, dict[str, str], Failure]] = {
    "429": (CLAUDE, 429, claude_error("rate_limit_error"), {"retry-after": "9"}, Failure("error", "rate_limited", "answered", 9.0)),
    "529": (CLAUDE, 529, claude_error("overloaded_error", "Overloaded"), {}, Failure("error", "overloaded", "answered")),
    "too long": (CLAUDE, 400, claude_error("invalid_request_error", "prompt is too long: 9 > 3"), {}, FAILURES["context"]),
    "balance": (CLAUDE, 400, claude_error("invalid_request_error", "Your credit balance is too low"), {}, FAILURES["insufficient_quota"]),
    "402": (CLAUDE, 402, claude_error("billing_error"), {}, FAILURES["insufficient_quota"]),
    "401": (CLAUDE, 401, claude_error("authentication_error"), {}, FAILURES["unauthorized"]),
    "413": (CLAUDE, 413, claude_error("request_too_large"), {}, FAILURES["bad_request"]),
    "garbage": (CLAUDE, 200, "not a message", {}, FAILURES["invalid_json"]),
    "gemini 429": (
        GEMINI,
        429,
        gemini_error(429, "RESOURCE_EXHAUSTED", "no", RETRY),
        {},
        Failure("error", "rate_limited", "answered", 46.0),
    ),
    "gemini 503": (GEMINI, 503, gemini_error(503, "UNAVAILABLE"), {}, FAILURES["unavailable"]),
    "gemini too long": (GEMINI, 400, gemini_error(400, "INVALID_ARGUMENT", TOO_LONG), {}, FAILURES["context"]),
    "gemini garbage": (GEMINI, 200, "not a candidate", {}, FAILURES["invalid_json"]),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_other_providers(client: Client, case: str) -> None:
    model, status, body, headers, failure = REFUSED[case]
    assert await answered(client, model, status, body, headers) == failure


async def test_a_wish_that_a_model_cannot_fulfil_is_left_out_and_said(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    got = await answered(client, CLAUDE, 429, claude_error("rate_limit_error"), seed=7, frequency_penalty=1.0)
    assert got.outcome == "rate_limited"
    assert "does not take frequency_penalty, seed" in caplog.text


async def test_a_demand_that_a_model_cannot_fulfil_rules_it_out(client: Client) -> None:
    assert await answered(client, "perplexity/sonar", 200, {}, tools=({"type": "function"},)) == Failure("error", "unsupported", "no")


PICTURE = Message(role="user", content=({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/heron.png"}},))


@pytest.mark.parametrize(
    ("model", "prompt", "outcome"),
    [
        ("openai/gpt-4o", PROMPT, "no_key"),
        (CLAUDE, PROMPT, "no_key"),
        (GEMINI, PROMPT, "no_key"),
        ("heron/tall", PROMPT, "no_provider"),
        (CLAUDE, Prompt(messages=(PICTURE,)), "image_unreachable"),
    ],
)
async def test_what_litellm_refuses_by_itself_was_not_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch, model: str, prompt: Prompt, outcome: str
) -> None:
    for name in ("OPENAI", "ANTHROPIC", "GEMINI", "GOOGLE"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    api_key = None if outcome == "no_key" else "k"
    got = await client.complete(Model(litellm=model, context=8000), prompt, max_tokens=9, api_key=api_key, timeout_s=5)
    assert got == Failure("error", outcome, "no")


def test_logs_of_litellm_are_off(litellm_client: Client) -> None:
    assert logging.getLogger("LiteLLM").disabled


@pytest.mark.parametrize("kind", [None, "server_error"])
async def test_litellm_builds_no_log_entry_of_a_call(ask: Ask, server: Provider, monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    from litellm.litellm_core_utils.litellm_logging import Logging

    built: list[str] = []
    for name in ("handle_sync_success_callbacks_for_async_calls", "claim_async_success_log", "failure_handler"):
        monkeypatch.setattr(Logging, name, lambda *_a, name=name, **_k: built.append(name))
    if kind:
        server.faults.add(kind)
    await ask()
    assert built == []
