"""`attribute` is cut around its one transaction and its publishes: the stored response goes out, the same bytes however often.

And the ledger's book is the one that is published: the first cost record is the row's, whatever died between.
"""

from __future__ import annotations

import pytest

from tests.crash import crew
from tests.crash.crew import ALL
from tests.kafka.asking import question, questions
from tests.kafka.books import account, select
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, key

STORED = "SELECT tenant, request_id, response, cost_record FROM request"

ROWS = {"before_end": 1, "after_end": 1, "half_published": 2, "published": 2}
"""The points (see `cut.py`), and how many copies of the response such a death may lead to."""


@pytest.mark.parametrize("point", ROWS)
async def test_killed(point: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    fatal = question(tenant, f"kill-attribute.{point}-{tenant}")
    others = questions(tenant, 8)
    await crew.start(fleet, *ALL)

    await topics.ask(*others[:4], fatal, *others[4:])
    await crew.killed(fleet, "attribute")
    await crew.start(fleet, "attribute")

    accounts = await account(fleet, topics, [fatal, *others])
    stored = {f"{tenant}/{name}": (bytes(said), bytes(book)) for tenant, name, said, book in await select(fleet.ledger_url, STORED)}
    for request in (fatal, *others):
        one = accounts[request["request_id"]]
        assert (one.response["status"], one.row.sent, one.calls) == ("answered", ["settled"], 1)
        assert (set(one.responses), one.costs) == ({stored[key(request)][0]}, {stored[key(request)][1]}), "not what is stored"
        assert len(one.responses) <= 2, "a death repeats a response at most once"
    assert len(accounts[fatal["request_id"]].responses) == ROWS[point]
