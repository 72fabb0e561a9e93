"""What can go wrong, by name, and how a test asks for it.

Three ways: a queue (`Faults.add`, `POST /control/faults`), a model name with `!KIND` at its end (`mini!unavailable`), or a marker in any
message (`[[fault:rate_limit retry_after=2 model=mini times=1]]`). A fault that does not exist is refused, so that no test passes by a typo.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

KINDS: Final = {
    # HTTP errors
    "rate_limit": "429 rate_limit_exceeded with Retry-After (retry_after, seconds)",
    "insufficient_quota": "429 insufficient_quota",
    "server_error": "500",
    "unavailable": "503",
    "unauthorized": "401",
    "not_found": "404",
    "bad_request": "400",
    "content_policy": "400 content_policy_violation",
    "context": "400 context_length_exceeded, in the classic words",
    "context_window": "400 context_length_exceeded, in the newer words",
    # broken transport
    "hang": "no answer for `seconds` (an hour), then a good one",
    "drip": "a byte every 0.2 s, for ever",
    "truncated": "the connection is cut in the middle of the body",
    "reset": "the connection is cut before the first byte of the answer",
    "invalid_json": "200 with a body that is not JSON",
    # poor answers, all 200
    "refusal": "the model declines",
    "empty": "no content",
    "length": "cut after `tokens` (5) tokens, finish_reason length",
    "wrong_json": "prose, whatever response_format says",
    "say": "`content`, word for word",
    # odd books, all 200
    "no_usage": "no usage at all",
    "negative_usage": "prompt_tokens -5",
    "absurd_usage": "a billion prompt tokens, more cached than there are",
    "usage": "`usage` as given",
}


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    model: str | None = None
    """Only calls of this model."""
    contains: str | None = None
    """Only calls with this text in a message."""
    times: int | None = 1
    """How many calls; None: every one."""
    retry_after: float = 1
    seconds: float = 3600
    tokens: int = 5
    content: str = ""
    usage: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}; known: {', '.join(KINDS)}")

    def fits(self, model: str, text: str) -> bool:
        return (self.model is None or self.model == model) and (self.contains is None or self.contains in text)


_MARKER = re.compile(r"\[\[fault:(?P<kind>\w+)(?P<args>[^\]]*)\]\]")
_READ: Final = {"times": int, "tokens": int, "retry_after": float, "seconds": float}


def marked(model: str, text: str) -> Iterable[Fault]:
    """The faults that a model's name and the prompt's markers ask for. A marker without `times` holds for every call."""
    _, bang, kind = model.rpartition("!")
    if bang:
        yield Fault(kind, model=model, times=None)
    for marker in _MARKER.finditer(text):
        args = dict(a.split("=", 1) for a in marker["args"].split())
        yield Fault(marker["kind"], **({"times": None} | {k: _READ.get(k, str)(v) for k, v in args.items()}))


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []
        self._seen: Counter[tuple[Fault, str]] = Counter()

    def add(self, kind: str, **args: Any) -> None:
        self._queue.append(Fault(kind, **args))

    def clear(self) -> None:
        self._queue.clear()
        self._seen.clear()

    def __iter__(self) -> Iterable[Fault]:
        return iter(self._queue)

    def take(self, model: str, text: str, prompt: str) -> Fault | None:
        """The fault of this call, used up; `prompt` is its digest, by which the `times` of a marker are counted."""
        for i, fault in enumerate(self._queue):
            if fault.fits(model, text):
                if fault.times is not None:
                    self._queue[i] = replace(fault, times=fault.times - 1)
                    if fault.times <= 1:
                        del self._queue[i]
                return fault
        for fault in marked(model, text):
            if fault.fits(model, text) and (fault.times is None or self._seen[fault, prompt] < fault.times):
                self._seen[fault, prompt] += 1
                return fault
        return None
