"""THE provider-shaped server: OpenAI chat completions over real HTTP, with faults on demand and a log of every call.

In a test: `async with provider() as p:`, then `p.base_url`, `p.faults.add("rate_limit")`, `p.calls`. As a process:
`python -m tests.provider`; what a test does with `p` in process it does over HTTP at
`/control/calls`, `/control/faults`, `/control/latency`, `/control/windows`.
It knows no key and asks for none. A request it cannot understand gets a 400, as at the real one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.provider import answers, latency, tokens
from tests.provider.calls import Call, Calls
from tests.provider.faults import Fault, Faults

CREATED = 1_700_000_000
ERRORS: Mapping[str, tuple[int, str, str | None, str]] = {
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests"),
    "insufficient_quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan"),
    "server_error": (500, "server_error", None, "The server had an error while processing your request"),
    "unavailable": (503, "server_error", None, "The engine is currently overloaded, please try again later"),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it"),
    "bad_request": (400, "invalid_request_error", "invalid_value", "Invalid value for a parameter"),
    "content_policy": (400, "invalid_request_error", "content_policy_violation", "The response was filtered by the content policy"),
    "context": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is {window} tokens. However, your messages resulted in {asked} tokens.",
    ),
    "context_window": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
}
QUOTE = ("server_error", "bad_request", "content_policy")
"""These quote the prompt, as providers do at times."""
SAYS = {
    "refusal": "I'm sorry, but I can't help with that.",
    "empty": "",
    "wrong_json": "Sure! Here is what you asked for, in plain words.",
}


class Provider:
    """State and handlers of one server."""

    def __init__(
        self,
        log: Path | None = None,
        delays: Iterator[float] | None = None,
        windows: Mapping[str, int] | None = None,
        numbered: bool = False,
    ) -> None:
        self.calls = Calls(log, whole=numbered)
        self.faults = Faults()
        self.delays = delays or latency.fixed(0)
        self.windows = dict(windows or {})
        """Context window by model, in our count of tokens; a model without one takes anything."""
        self.numbered = numbered
        """Every answer names its call, and the log has the messages: of an answer anybody can tell whose question it was given to."""
        self.bodies: list[dict[str, Any]] = []
        """What was asked, word for word and in order; in process only."""
        self.url = ""

    @property
    def base_url(self) -> str:
        """What LiteLLM calls `api_base`."""
        return f"{self.url}/v1"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/control/calls", self._show_calls)
        app.router.add_delete("/control/calls", self._forget_calls)
        app.router.add_post("/control/faults", self._add_faults)
        app.router.add_delete("/control/faults", self._clear_faults)
        app.router.add_post("/control/latency", self._set_latency)
        app.router.add_post("/control/windows", self._set_windows)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            model, messages = body["model"], body["messages"]
            whole = "\n".join(tokens.text_of(m) for m in messages)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error("bad_request")
        peer = request.transport.get_extra_info("peername") if request.transport else None
        digest = answers.prompt_digest(body)
        call = self.calls.arrived(
            model=model,
            max_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
            prompt=digest,
            request_id=request.headers.get("x-request-id"),
            connection=peer[1] if peer else 0,
            messages=messages if self.numbered else None,
        )
        self.bodies.append(body)
        fault = self.faults.take(model, whole, digest)
        call.fault = fault.kind if fault else None
        try:
            await asyncio.sleep(next(self.delays) + (fault.seconds if fault and fault.kind == "hang" else 0))
            return await self._answer(request, body, call, fault)
        except (asyncio.CancelledError, ConnectionResetError):
            self.calls.aborted(call)
            raise

    async def _answer(self, request: web.Request, body: dict[str, Any], call: Call, fault: Fault | None) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        asked, window = tokens.prompt(body["messages"]), self.windows.get(body["model"])
        if window is not None and asked + (call.max_tokens or 0) > window:
            kind = "context"
        if kind in ERRORS:
            self.calls.answered(call, ERRORS[kind][0], None)
            quoted = tokens.text_of(body["messages"][-1]) if kind in QUOTE else ""
            return _error(kind, quoted, retry_after=fault.retry_after if fault else None, window=window or 4096, asked=asked)
        completion = _completion(body, call.n, fault, f"[call {call.n}] " if self.numbered else "")
        said = json.dumps(completion).encode()
        if kind == "drip":
            return await _drip(request)
        self.calls.answered(call, 200, completion.get("usage"))
        if kind == "invalid_json":
            return web.Response(body=b"<html>" + said[:20], content_type="application/json")
        if kind in ("truncated", "reset"):
            return await _cut(request, said if kind == "truncated" else b"")
        return web.Response(body=said, content_type="application/json", headers={"x-request-id": f"req_{call.n}"})

    async def _show_calls(self, request: web.Request) -> web.Response:
        return web.json_response(self.calls.dump())

    async def _forget_calls(self, request: web.Request) -> web.Response:
        self.calls.clear()
        self.bodies.clear()
        return web.json_response({})

    async def _add_faults(self, request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            for fault in asked if isinstance(asked, list) else [asked]:
                self.faults.add(**fault)
        except (TypeError, ValueError) as e:
            return web.json_response({"error": str(e)}, status=400)
        return web.json_response({})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear()
        return web.json_response({})

    async def _set_latency(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.delays = latency.lognormal(**asked) if "mean" in asked else latency.fixed(asked["seconds"])
        return web.json_response({})

    async def _set_windows(self, request: web.Request) -> web.Response:
        self.windows.update(await request.json())
        return web.json_response({})


def _error(kind: str, quoted: str, retry_after: float | None = None, **words: int) -> web.Response:
    status, type_, code, message = ERRORS[kind]
    headers = {"Retry-After": f"{retry_after:g}"} if kind == "rate_limit" and retry_after is not None else {}
    message = message.format(**words) + (f": {quoted}" if quoted else "")
    error = {"message": message, "type": type_, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _cut(request: web.Request, said: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(said))})
    if said:
        await response.prepare(request)
        await response.write(said[: len(said) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.2)


def _completion(body: dict[str, Any], n: int, fault: Fault | None, before: str) -> dict[str, Any]:
    kind = fault.kind if fault else ""
    calls = None if kind in SAYS or kind == "say" else answers.tool_calls(body)
    if calls:
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": calls}
        finish, billed = "tool_calls", tokens.count(json.dumps(calls))
    else:
        whole = fault.content if fault and kind == "say" else SAYS.get(kind)
        whole = before + answers.content(body) if whole is None else whole
        said, finish = answers.cut(whole, body)
        if fault and kind == "length":
            said, finish = tokens.first(said, fault.tokens), "length"
        message, billed = {"role": "assistant", "content": said}, tokens.count(said)
    completion = {
        "id": f"chatcmpl-{n}",
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": _usage(tokens.prompt(body["messages"]), billed, fault),
    }
    if kind == "no_usage":
        del completion["usage"]
    return completion


def _usage(asked: int, said: int, fault: Fault | None) -> dict[str, Any]:
    if fault and fault.kind == "usage" and fault.usage is not None:
        return dict(fault.usage)
    cached = 0
    if fault and fault.kind == "negative_usage":
        asked = -5
    if fault and fault.kind == "absurd_usage":
        asked, cached = 1_000_000_000, 2_000_000_000
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@asynccontextmanager
async def provider(
    host: str = "127.0.0.1",
    port: int = 0,
    log: Path | None = None,
    delays: Iterator[float] | None = None,
    windows: Mapping[str, int] | None = None,
    numbered: bool = False,
) -> AsyncIterator[Provider]:
    """A server that listens until the block ends; port 0 takes a free one."""
    here = Provider(log, delays, windows, numbered)
    # A client that hangs up cancels its handler: that is how an aborted call gets into the log.
    runner = web.AppRunner(here.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        here.url = f"http://{host}:{runner.addresses[0][1]}"
        yield here
    finally:
        await runner.cleanup()
        here.calls.close()
