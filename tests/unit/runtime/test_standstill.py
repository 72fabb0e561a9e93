"""A consumer that delivers nothing although there is something is told, made anew once, and ends the process when that has not helped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.errors import KafkaError

from tests.unit.runtime.test_intake import Rec
from workers.outcomes import Unavailable
from workers.runtime import health, standstill
from workers.runtime.intake import Intake, Later, Record
from workers.runtime.parking import Parking

TP = ("t", 0)
LOOK_S = 0.01


class Asked:
    """A consumer, as far as it is asked: where it stands and where its partition ends."""

    def __init__(self, position: int = 0, end: int = 0, fails: BaseException | None = None) -> None:
        self.at = position
        self.end = end
        self.fails = fails
        self.hangs = False
        self.looks = 0
        self._look = asyncio.Condition()

    def assignment(self) -> Collection[tuple[str, int]]:
        return {TP}

    async def end_offsets(self, partitions: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        async with self._look:
            self.looks += 1
            self._look.notify_all()
        if self.fails:
            raise self.fails
        return dict.fromkeys(partitions, self.end)

    async def looked(self, times: int) -> None:
        async with asyncio.timeout(20), self._look:
            await self._look.wait_for(lambda: self.looks >= times)

    async def position(self, _partition: tuple[str, int]) -> int:
        if self.hangs:
            await asyncio.Event().wait()
        return self.at


async def make_intake(kafka_is_up: asyncio.Event | None = None) -> Intake:
    async def deliver(_records: Sequence[Record]) -> list[Later]:
        return []

    async def kafka() -> None:
        if kafka_is_up is not None and not kafka_is_up.is_set():
            raise Unavailable("kafka", "down")

    intake = Intake(deliver, Parking({"kafka": kafka}, lambda *_: None), limit=1, backlog=10, single=False, drain_s=0.1)
    await intake.on_partitions_assigned([TP])
    return intake


class Watched:
    """`watch`, running; `renewed` counts how often it made the consumer anew, and `after` happens each time."""

    def __init__(self, intake: Intake, consumer: Asked | None, after=lambda: None, looks: int = 3) -> None:  # type: ignore[no-untyped-def]
        self.renewed = 0
        self._after = after

        async def renew() -> None:
            self.renewed += 1
            if isinstance(result := self._after(), BaseException):
                raise result

        self.task = asyncio.create_task(standstill.watch(intake, lambda: consumer, renew, look_s=LOOK_S, looks=looks, renew_s=0.2))

    async def __aenter__(self) -> Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_that_takes_nothing_is_made_anew_and_goes_on() -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=10)

    def mend() -> None:
        consumer.at = consumer.end

    async with Watched(intake, consumer, mend) as watched:
        await consumer.looked(12)
        assert watched.renewed == 1
        assert intake.standstill is None
        assert not watched.task.done()


async def test_it_is_told_while_it_is_so() -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=10)
    told = asyncio.Event()

    async def renew() -> None:
        told.set()
        await asyncio.Event().wait()

    watching = asyncio.create_task(standstill.watch(intake, lambda: consumer, renew, look_s=LOOK_S, looks=2, renew_s=5))
    async with asyncio.timeout(20):
        await told.wait()
    async with TestClient(TestServer(health.application({("remember", "bulk"): intake}, {}, 1))) as client:
        page = await client.get("/readyz")
        assert page.status == 503
        assert (await page.json())["wrong"] == ["remember.bulk: takes nothing, 7 records behind"]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_the_process_ends_when_the_new_one_takes_nothing_either() -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=10)
    async with Watched(intake, consumer) as watched:
        with pytest.raises(standstill.Standstill, match="7 records behind"):
            await asyncio.wait_for(watched.task, 20)
        assert watched.renewed == 1


@pytest.mark.parametrize("error", [KafkaError("away"), None], ids=["refused", "hangs"])
async def test_the_process_ends_when_it_cannot_be_made_anew(error: Exception | None) -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=10)

    async def renew() -> None:
        if error:
            raise error
        await asyncio.Event().wait()

    with pytest.raises(standstill.Standstill, match="cannot be made anew"):
        await asyncio.wait_for(standstill.watch(intake, lambda: consumer, renew, look_s=LOOK_S, looks=2, renew_s=0.05), 20)


@pytest.mark.parametrize("taken", [[Rec(0)], []], ids=["after records", "after none"])
async def test_a_second_standstill_later_is_mended_as_the_first_was(taken: list[Rec]) -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=10)
    async with Watched(intake, consumer, lambda: setattr(consumer, "at", consumer.end)) as watched:
        await consumer.looked(12)
        await intake.take(taken, None)
        consumer.looks, consumer.end = 0, 20
        await consumer.looked(12)
        assert watched.renewed == 2
        assert not watched.task.done()
    await intake.close()


async def test_one_that_has_read_all_or_is_not_assigned_stands_still_rightly() -> None:
    intake, consumer = await make_intake(), Asked(position=10, end=10)
    async with Watched(intake, consumer) as watched:
        await consumer.looked(12)
        await intake.on_partitions_revoked([TP])
        consumer.end = 20
        await asyncio.sleep(LOOK_S * 10)
        assert watched.renewed == 0


async def test_one_that_takes_slowly_is_left_alone() -> None:
    intake, consumer = await make_intake(), Asked(position=3, end=1_000)
    async with Watched(intake, consumer, looks=4) as watched:
        for offset in range(12):
            await intake.take([Rec(offset)], None)
            await asyncio.sleep(LOOK_S * 2)
        assert watched.renewed == 0
    await intake.close()


async def test_one_whose_work_is_under_way_is_left_alone() -> None:
    going_on = asyncio.Event()

    async def deliver(_records: Sequence[Record]) -> list[Later]:
        await going_on.wait()
        return []

    intake = Intake(deliver, Parking({}, lambda *_: None), limit=1, backlog=10, single=False, drain_s=0.1)
    await intake.on_partitions_assigned([TP])
    async with Watched(intake, Asked(position=3, end=10)) as watched:
        await intake.take([Rec(0)], None)
        await asyncio.sleep(LOOK_S * 12)
        assert watched.renewed == 0
    going_on.set()
    await intake.close()


@pytest.mark.parametrize("silence", [KafkaError("x"), KeyError("x"), None], ids=["error", "bug", "hangs"])
async def test_one_that_does_not_answer_stands_still_only_while_its_broker_answers(silence: Exception | None) -> None:
    up = asyncio.Event()
    intake, consumer = await make_intake(up), Asked(position=3, end=10, fails=silence)
    consumer.hangs = silence is None

    def mend() -> None:
        consumer.fails, consumer.hangs, consumer.at = None, False, consumer.end

    async with Watched(intake, consumer, mend) as watched:
        await consumer.looked(12)
        assert watched.renewed == 0, "it is the broker that is away"
        up.set()
        consumer.looks = 0
        await consumer.looked(12)
        assert watched.renewed == 1


async def test_without_a_consumer_to_ask_nothing_is_done() -> None:
    async with Watched(await make_intake(), None) as watched:
        await asyncio.sleep(LOOK_S * 10)
        assert watched.renewed == 0
        assert not watched.task.done()
