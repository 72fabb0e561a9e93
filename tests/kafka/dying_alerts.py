"""`python -P dying_alerts.py POINT run attribute`: it kills itself with SIGKILL around the publish of its first alerts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from typing import Any, Final

from workers.cli.main import main
from workers.ledger.alerts import Unsent
from workers.ledger.watch import Watch

POINTS: Final = {
    "stored": "the alert is in the ledger, not on its topic",
    "published": "it is on its topic, and the ledger does not know",
}


def wrap(point: str) -> None:
    unsent = Watch.unsent

    async def dies_before(self: Watch) -> Any:
        found = await unsent(self)
        if found:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    async def dies_after(self: Watch, unsent: Collection[Unsent]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "stored":
        Watch.unsent = dies_before  # type: ignore[method-assign]
    else:
        Watch.sent = dies_after  # type: ignore[method-assign]


if __name__ == "__main__":
    wrap(sys.argv.pop(1))
    main()
