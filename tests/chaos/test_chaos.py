"""The first storm in short form, judged by the checker. CI adds the other two (`make chaos ARGS='--short …'`); `make chaos` runs ten in
full length.

On a broker and a database that keep their records, and that are ours to crash; skipped where there are none and none are required.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.chaos.checker.evidence import gather
from tests.chaos.checker.rules import figures, judge
from tests.chaos.database import postgres
from tests.chaos.run import SEEDS, SHORT, World, storm, world
from tests.servers.kafka import Broker
from tests.servers.postgres import NoServer
from tests.servers.required import required

SEED = SEEDS[0]


@pytest.fixture(scope="module")
def fleet(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not kafka.durable:
        pytest.skip(f"{kafka.title} would come back without its records")
    try:
        with postgres() as database, world([SEED], SHORT, kafka, database, tmp_path_factory.mktemp("chaos"), print) as fleet:
            yield fleet
    except NoServer as error:
        if required("postgres"):
            pytest.fail(f"SCRIMP_REQUIRE names postgres: {error}")
        pytest.skip(str(error))


@pytest.mark.timeout(420)
def test_a_storm_breaks_no_promise(fleet: World) -> None:
    asyncio.run(storm(fleet, SEED))

    evidence = asyncio.run(gather(fleet.folder))
    print(figures(evidence))
    problems = {rule: found for rule, found in judge(evidence).items() if found}
    assert not problems, f"replay: make chaos ARGS='--short --seed {SEED}'"


def test_the_storm_puts_the_promises_to_the_test(fleet: World) -> None:
    told = figures(asyncio.run(gather(fleet.folder)))
    assert told["blows"]["kill"]
    assert told["unreadable"]
    assert told["by_status"]["answered"] > told["sent"] / 3
    assert told["by_reason"]["budget_exceeded"]
    assert told["by_reason"]["request_id_conflict"]
    assert told["attempts"]["unconfirmed"]
    assert told["of_the_hurried"]
