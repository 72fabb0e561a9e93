"""Short work runs where it is asked for, long work in a thread."""

from __future__ import annotations

import threading

import pytest

from schemas import Document, Prompt
from schemas.request import Message
from workers.offload import SHORT_CHARS, offload


def prompt(text: str, **more: object) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), **more)  # type: ignore[arg-type]


SHORT, LONG = prompt("Why?"), prompt("x" * (SHORT_CHARS + 1))
HALF = prompt("x" * (SHORT_CHARS // 2))
DOCUMENTED = prompt("Why?", documents=(Document(id="a", text="Because."),))
PARTS = Prompt(messages=(Message(role="user", content=({"type": "text", "text": "Why?"},)),))


@pytest.mark.parametrize(
    ("prompts", "here"),
    [
        ([SHORT], True),
        ([], True),
        ([HALF] * 2, True),
        ([HALF] * 3, False),
        ([LONG], False),
        ([SHORT, LONG], False),
        ([DOCUMENTED], False),
        ([PARTS], False),
    ],
)
async def test_only_short_prompts_are_worked_on_here(prompts: list[Prompt], *, here: bool) -> None:
    ran_in = await offload(threading.get_ident, prompts)
    assert (ran_in == threading.get_ident()) is here


@pytest.mark.parametrize("prompts", [[SHORT], [LONG]])
async def test_what_the_work_raises_comes_out(prompts: list[Prompt]) -> None:
    with pytest.raises(ZeroDivisionError):
        await offload(lambda: 1 // 0, prompts)
