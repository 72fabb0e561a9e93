"""`python -P cut.py FOLDER plain|litellm run STAGE`: the worker as it is, cut at named points of the ports that it stands on.

A mark in a record says what happens where: `kill-call.after_open-t17` is SIGKILL in `call`, once an attempt is granted to whoever has the
mark in its request id. The verbs:

| verb | what the process does at the point |
|---|---|
| `kill` | sends itself SIGKILL |
| `stop` | sends itself SIGSTOP; the test wakes it |
| `hold` | lives and beats, and waits there until the test makes the file `MARK.go` |
| `bug` | raises, every time |

All but `bug` happen once: the file `MARK.cut` in FOLDER remembers it, so that the next process, started by the same command, goes on.
`plain` puts a bare HTTP client in LiteLLM's place, which saves the seconds of its import where the wire is not the point.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from schemas import Prompt, Usage
from workers.call import provider
from workers.call.failures import Failure
from workers.call.messages import build
from workers.call.provider import Reply
from workers.cli import stages
from workers.cli.main import main
from workers.ledger.ledger import Ledger
from workers.ledger.types import Answer, Ask, Ending, Granted, Revised, Settlement
from workers.policy import Model
from workers.runtime.delivery import Delivery

POINTS: Final = {
    "call.before_open": "nothing is reserved",
    "call.after_open": "the attempt is reserved, the request not sent",
    "call.before_settle": "the provider has answered, the books do not know",
    "call.after_settle": "the answer is in the books, the ending not published",
    "attribute.before_end": "the ending is not in the books",
    "attribute.after_end": "the ending is in the books, nothing published",
    "attribute.after_sweep": "a cost record has a new revision, not published",
    "attribute.before_noted": "the revision is published, the books do not know",
    "*.half_published": "the first record of several is on its topic",
    "*.published": "all is on its topic, the offset not committed",
    "*.await_N": "before (even N) and in (odd N) each wait of the code that works on the record",
    "*.work": "in the stage itself",
}
"""`*` is any stage."""

MARK = re.compile(rb"(kill|stop|hold|bug)-([a-z]+\.\w+)-(\w+)")


@dataclass(frozen=True)
class Mark:
    verb: str
    point: str
    name: str
    """The whole mark; names its files."""


def marks(texts: Iterable[str | bytes | None]) -> list[Mark]:
    """Each mark once."""
    found = [m for text in texts for m in MARK.finditer(text.encode() if isinstance(text, str) else text or b"")]
    return list(dict.fromkeys(Mark(m[1].decode(), m[2].decode(), m[0].decode()) for m in found))


class Cuts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def at(self, point: str, texts: Iterable[str | bytes | None]) -> None:
        for mark in marks(texts):
            if mark.point == point and self.once(mark) and mark.verb == "hold":
                while not (self._folder / f"{mark.name}.go").exists():  # noqa: ASYNC110  another process makes it
                    await asyncio.sleep(0.02)

    def ahead(self, mark: Mark) -> bool:
        return not (self._folder / f"{mark.name}.cut").exists()

    def once(self, mark: Mark) -> bool:
        """Whether this is the first time; a killed process does not get to know."""
        try:
            (self._folder / f"{mark.name}.cut").touch(exist_ok=False)
        except FileExistsError:
            return False
        if mark.verb in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if mark.verb == "kill" else signal.SIGSTOP)
        return True

    def survived(self, mark: Mark) -> None:
        (self._folder / f"{mark.name}.survived").touch()


class Steps:
    """A coroutine whose every step is counted: `at(2 * n)` before it runs on for the n-th time, `at(2 * n + 1)` when it waits again."""

    def __init__(self, work: Any, at: Any) -> None:
        self._work = work
        self._at = at

    def __await__(self) -> Generator[Any, Any, Any]:
        inner, n = self._work.__await__(), 0
        step, value = inner.send, None
        while True:
            self._at(n)
            try:
                waits_for = step(value)
            except StopIteration as done:
                return done.value
            self._at(n + 1)
            n += 2
            try:
                step, value = inner.send, (yield waits_for)
            except BaseException as e:  # noqa: BLE001  a cancellation goes on to where it belongs
                step, value = inner.throw, e


def wrap_ledger(cuts: Cuts) -> None:
    open_, settle, end, sweep, published = Ledger.open, Ledger.settle, Ledger.end, Ledger.sweep, Ledger.published

    async def open_cut(self: Ledger, asks: list[Ask]) -> Any:
        await cuts.at("call.before_open", (ask.facts.request_id for ask in asks))
        answers = await open_(self, asks)
        granted = (ask.facts.request_id for ask, answer in zip(asks, answers, strict=True) if isinstance(answer, Granted))
        await cuts.at("call.after_open", granted)
        return answers

    async def settle_cut(self: Ledger, settlements: list[Settlement]) -> Any:
        await cuts.at("call.before_settle", (s.request_id for s in settlements))
        settled = await settle(self, settlements)
        await cuts.at("call.after_settle", (s.request_id for s in settlements))
        return settled

    async def end_cut(self: Ledger, endings: list[Ending]) -> Any:
        await cuts.at("attribute.before_end", (e.facts.request_id for e in endings))
        closed = await end(self, endings)
        await cuts.at("attribute.after_end", (e.facts.request_id for e in endings))
        return closed

    async def sweep_cut(self: Ledger) -> Any:
        revised = await sweep(self)
        await cuts.at("attribute.after_sweep", (r.request_id for r in revised))
        return revised

    async def published_cut(self: Ledger, revised: list[Revised]) -> None:
        await cuts.at("attribute.before_noted", (r.request_id for r in revised))
        await published(self, revised)

    Ledger.open, Ledger.settle, Ledger.end = open_cut, settle_cut, end_cut  # type: ignore[method-assign]
    Ledger.sweep, Ledger.published = sweep_cut, published_cut  # type: ignore[method-assign]


def wrap_delivery(cuts: Cuts) -> None:
    init, deliver, publish = Delivery.__init__, Delivery.deliver, Delivery._publish

    def init_buggy(self: Any, stage: Any, lane: Any, *, work: Any, **options: Any) -> None:
        async def buggy(events: Sequence[Any]) -> Any:
            if any(mark.verb == "bug" and mark.point == f"{stage.name}.work" for mark in marks(e.facts.request_id for e in events)):
                raise ZeroDivisionError("a secret of the prompt")
            return await work(events)

        init(self, stage, lane, work=buggy, **options)

    async def deliver_cut(self: Any, records: Sequence[Any]) -> Any:
        wanted = {m.point.partition("await_")[2]: m for m in marks(r.value for r in records) if f"{self._stage.name}.await_" in m.point}
        later = await Steps(deliver(self, records), lambda n: cuts.once(wanted[str(n)]) if str(n) in wanted else None)
        for mark in wanted.values():
            cuts.survived(mark)
        return later

    async def publish_cut(self: Any, groups: Sequence[Any]) -> int:
        for group in groups:
            for mark in marks([group.record.value]):
                if mark.point == f"{self._stage.name}.half_published" and cuts.ahead(mark):
                    await self._producer.send(group.outgoing[:1])
                    cuts.once(mark)
        refused = await publish(self, groups)
        await cuts.at(f"{self._stage.name}.published", (group.record.value for group in groups))
        return refused

    Delivery.__init__, Delivery.deliver, Delivery._publish = init_buggy, deliver_cut, publish_cut  # type: ignore[method-assign,assignment]


def wrap_redeliver(cuts: Cuts) -> None:
    make = stages.make_redeliver

    def make_cut(*args: Any, **options: Any) -> Any:
        deliver = make(*args, **options)

        async def deliver_cut(records: Sequence[Any]) -> Any:
            later = await deliver(records)
            waiting = {id(record) for record, _ in later}
            await cuts.at("redeliver.published", (r.value for r in records if id(r) not in waiting))
            return later

        return deliver_cut

    stages.make_redeliver = make_cut


class Plain:
    """Chat completions by a bare HTTP client, in place of `workers.call.provider.Client`."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def complete(
        self, model: Model, prompt: Prompt, *, max_tokens: int, instruction: str | None, timeout_s: float, **_: Any
    ) -> Reply | Failure:
        self._session = self._session or aiohttp.ClientSession()
        name = model.litellm.partition("/")[2]
        form = prompt.params.model_dump(mode="json", include={"response_format"}, exclude_none=True)
        body = {"model": name, "messages": build(prompt, instruction), "max_tokens": max_tokens, **form}
        timeout = aiohttp.ClientTimeout(timeout_s)
        async with self._session.post(f"{model.api_base}/chat/completions", json=body, timeout=timeout) as response:
            said = await response.json()
            if response.status == 429:
                return Failure("error", "rate_limited", "answered", float(response.headers["retry-after"]))
            response.raise_for_status()
        choice, used = said["choices"][0], said["usage"]
        answer = Answer(choice["message"]["content"], None, choice["finish_reason"])
        return Reply(answer, Usage(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"]), estimated=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


if __name__ == "__main__":
    cuts = Cuts(Path(sys.argv.pop(1)))
    if sys.argv.pop(1) == "plain":
        provider.open_client = Plain  # type: ignore[assignment]
    wrap_ledger(cuts)
    wrap_delivery(cuts)
    wrap_redeliver(cuts)
    main()
