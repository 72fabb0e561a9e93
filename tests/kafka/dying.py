"""`python -P dying.py FOLDER run call`: the worker as it is, except that it kills itself with SIGKILL at a named point.

The port it wraps is the ledger's. A request named `die-POINT-…` picks the point; a file in FOLDER remembers that it happened, so that the
next process, started by the same command, lives on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from workers.cli.main import main
from workers.ledger.ledger import Ledger
from workers.ledger.types import Ask, Granted, Settlement

Point = Literal["before_open", "after_open", "before_settle", "after_settle"]
POINTS: Final = {
    "before_open": "nothing is reserved",
    "after_open": "the attempt is reserved, the request not sent",
    "before_settle": "the provider has answered, the books do not know",
    "after_settle": "the answer is in the books, the ending not published",
}


def die(point: Point, request_ids: Iterable[str], folder: Path) -> None:
    for request_id in request_ids:
        if request_id.startswith(f"die-{point}-"):
            try:
                (folder / f"{request_id}.died").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


def wrap(folder: Path) -> None:
    open_, settle = Ledger.open, Ledger.settle

    async def dying_open(self: Ledger, asks: list[Ask]) -> Any:
        die("before_open", (ask.facts.request_id for ask in asks), folder)
        answers = await open_(self, asks)
        granted = (ask.facts.request_id for ask, answer in zip(asks, answers, strict=True) if isinstance(answer, Granted))
        die("after_open", granted, folder)
        return answers

    async def dying_settle(self: Ledger, settlements: list[Settlement]) -> Any:
        die("before_settle", (s.request_id for s in settlements), folder)
        settled = await settle(self, settlements)
        die("after_settle", (s.request_id for s in settlements), folder)
        return settled

    Ledger.open, Ledger.settle = dying_open, dying_settle  # type: ignore[method-assign]


if __name__ == "__main__":
    wrap(Path(sys.argv.pop(1)))
    main()
