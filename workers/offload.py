"""Where and when CPU work runs: here when it is short, in a thread when it is long, so that the event loop stays free; and what nobody
waits for after what somebody does.

A thread costs a short job more than the job itself: two switches, with the interpreter's lock between them. What the work raises comes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from schemas import Prompt

R = TypeVar("R")

SHORT_CHARS = 512
"""Prompts up to this many characters together are no work worth a thread: `classify`, the slowest, needs 3 ms for them."""

TURNS = 4
"""Of the event loop: on its way to a socket a question goes through tasks that begin one another."""


async def offload(work: Callable[[], R], prompts: Iterable[Prompt]) -> R:
    """What `work` returns, which takes time in proportion to these prompts."""
    return work() if _short(prompts) else await asyncio.to_thread(work)


async def others_first() -> None:
    """Let what is ready to run get as far as its first question to another server."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _short(prompts: Iterable[Prompt]) -> bool:
    left = SHORT_CHARS
    for prompt in prompts:
        if prompt.documents or prompt.params.tools:
            return False
        left -= sum(len(m.text) if isinstance(m.content, str) else SHORT_CHARS + 1 for m in prompt.messages)
        if left < 0:
            return False
    return True
