"""`python -m tests.provider --port 0 --log FILE`: prints its URL as one line, then serves until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.provider import latency
from tests.provider.server import provider


def _window(text: str) -> tuple[str, int]:
    model, _, size = text.rpartition("=")
    return model, int(size)


def _delays(args: argparse.Namespace) -> Iterator[float]:
    if args.latency_mean:
        return latency.lognormal(args.latency_mean, args.latency_max, args.seed)
    return latency.fixed(args.latency)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.provider", description="A server that speaks OpenAI chat completions.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, help="a file that gets one JSON line an event")
    parser.add_argument("--latency", type=float, default=0, help="seconds of every answer")
    parser.add_argument("--latency-mean", type=float, help="seconds; lognormal instead of fixed")
    parser.add_argument("--latency-max", type=float, default=1.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=_window, action="append", default=[], metavar="MODEL=TOKENS")
    parser.add_argument("--numbered", action="store_true", help="answers name their call, and the log has the messages")
    args = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with provider(args.host, args.port, args.log, _delays(args), dict(args.window), args.numbered) as here:
        print(here.url, flush=True)  # noqa: T201
        await stop.wait()


asyncio.run(main())
