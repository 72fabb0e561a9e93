"""`python -P stumbling.py run all`: the worker as it is, with two bugs: it stumbles over a request whose bytes hold `stumble-read`, while
reading it, and over a prompt with `stumble-call`, in the stage."""

from __future__ import annotations

from typing import Any

from workers.call import call
from workers.cli import stages
from workers.cli.main import main


def wrap() -> None:
    read, prompt_tokens = stages.read, call.prompt_tokens

    def stumbling_read(value: bytes | None, **options: Any) -> Any:
        if b"stumble-read" in (value or b""):
            raise ArithmeticError(f"what it says must not be told: {value!r}")
        return read(value, **options)

    def stumbling_count(event: Any, count: Any) -> int:
        if "stumble-call" in event.prompt.messages[-1].text:
            raise ArithmeticError(f"what it says must not be told: {event!r}")
        return prompt_tokens(event, count)

    stages.read, call.prompt_tokens = stumbling_read, stumbling_count  # type: ignore[assignment]


if __name__ == "__main__":
    wrap()
    main()
