"""The in-flight window under any schedule: bounds hold, only finished prefixes are committed, a revoked partition is given up cleanly."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.outcomes import Unavailable
from workers.runtime.intake import Intake, Later, Record
from workers.runtime.offsets import OutOfOrder, Partition
from workers.runtime.parking import Parking


@dataclass(eq=False)
class Rec:
    offset: int
    partition: int = 0
    topic: str = "t"
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Group:
    """The broker's side of one consumer: what it committed, and whether it still may."""

    committed: dict[Partition, int] = field(default_factory=dict)
    fails: int = 0

    async def commit(self, offsets: dict[Partition, int]) -> None:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise AssertionError("not yours")
        self.committed |= offsets


def make_parking(up: asyncio.Event | None = None) -> Parking:
    async def probe() -> None:
        if up is not None and not up.is_set():
            raise Unavailable("ledger", "down")

    return Parking({"ledger": probe}, lambda _name, _down: None, first_s=0.001, most_s=0.002)


def make_intake(deliver, parking: Parking | None = None, **options) -> Intake:  # type: ignore[no-untyped-def]
    defaults = {"limit": 4, "backlog": 12, "single": True, "drain_s": 0.2, "commit_every_s": 0.001}
    return Intake(deliver, parking or make_parking(), **(defaults | options))


async def settle(intake: Intake) -> None:
    while intake.running or intake.uncommitted:  # noqa: ASYNC110  looked at from outside on purpose
        await asyncio.sleep(0.001)
    await intake.commit()


@settings(max_examples=500, deadline=None)
@given(
    delays=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    again=st.sets(st.integers(0, 39), max_size=6),
    limit=st.integers(1, 6),
    room=st.integers(0, 10),
    commit_failures=st.integers(0, 3),
)
def test_bounds_and_prefixes_hold_for_any_schedule(delays: list[int], again: set[int], limit: int, room: int, commit_failures: int) -> None:
    backlog = limit + room
    group = Group(fails=commit_failures)
    finished: dict[Partition, set[int]] = defaultdict(set)
    tried: set[int] = set()
    most_running = most_open = 0

    async def scenario() -> None:
        running = 0

        async def deliver(records: Sequence[Record]) -> list[Later]:
            nonlocal running, most_running, most_open
            running += 1
            most_running = max(most_running, running)
            most_open = max(most_open, intake.uncommitted)
            (record,) = records
            for _ in range(delays[record.offset // 2]):
                await asyncio.sleep(0)
            running -= 1
            if record.offset in again and record.offset not in tried:
                tried.add(record.offset)
                return [(record, 0.0)]
            finished["t", record.partition].add(record.offset)
            return []

        intake = make_intake(deliver, limit=limit, backlog=backlog)
        await intake.on_partitions_assigned([("t", 0), ("t", 1)])
        # every other offset is missing: gaps are legal
        await intake.take([Rec(offset=2 * n, partition=n % 2) for n in range(len(delays))], group)
        await settle(intake)
        await intake.close()
        for partition, offset in group.committed.items():
            assert max(finished[partition]) + 1 == offset

    asyncio.run(scenario())
    assert sum(map(len, finished.values())) == len(delays)
    assert most_running <= limit
    assert most_open <= backlog


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("poll"), st.integers(1, 6)),
        st.tuples(st.just("pass"), st.integers(1, 8)),
        st.tuples(st.just("rebalance"), st.integers(0, 1)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("gate"), st.just(0)),
    ),
    max_size=25,
)
LONG = 6
"""A record with this delay goes on until the gate opens: past the drain of a revocation, if need be."""
DELAYS = st.binary(min_size=40, max_size=40).map(lambda drawn: [n % (LONG + 1) for n in drawn])
"""Of each record. Drawn as bytes: the same choice as a list of numbers, cheaper."""


@settings(max_examples=500, deadline=None)
@given(
    steps=STEPS,
    delays=DELAYS,
    limit=st.integers(1, 4),
    room=st.integers(0, 6),
)
def test_rebalances_and_crashes_lose_nothing_and_commit_only_what_is_finished(
    steps: list[Step], delays: list[int], limit: int, room: int
) -> None:
    """A broker that hands out offsets from what was committed, and a consumer that is revoked or killed at any point of its work."""
    finished: set[int] = set()
    group = Group()
    total = 40
    state = {"running": 0, "most": 0}
    gates: list[asyncio.Event] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        (record,) = records
        state["running"] += 1
        state["most"] = max(state["most"], state["running"])
        try:
            for _ in range(delays[record.offset]):
                await asyncio.sleep(0)
            if delays[record.offset] == LONG:
                await gates[-1].wait()
            finished.add(record.offset)
        finally:
            state["running"] -= 1
        return []

    def holds(intake: Intake) -> None:
        committed = group.committed.get(("t", 0), 0)
        assert finished >= set(range(committed)), f"committed to {committed} over unfinished records"
        assert intake.uncommitted <= limit + room

    def fresh() -> Intake:
        # Nothing commits by itself: the script says when.
        return make_intake(deliver, limit=limit, backlog=limit + room, drain_s=0.002, commit_every_s=60)

    async def scenario() -> None:
        gates.append(asyncio.Event())
        intake, position = fresh(), 0
        polls: list[asyncio.Task[None]] = []
        for what, n in [*steps, ("rebalance", 0)]:
            match what:
                case "poll":
                    batch = [Rec(o) for o in range(position, min(position + n, total))]
                    # One poll at a time, as FastStream does it: the next waits for the one before.
                    if batch and not any(not p.done() for p in polls):
                        position += len(batch)
                        polls = [asyncio.create_task(intake.take(batch, group))]
                        await asyncio.sleep(0)  # the poll and the taking are one step
                case "pass":
                    for _ in range(n):
                        await asyncio.sleep(0)
                case "commit":
                    await intake.commit()
                case "gate":
                    gates[-1].set()
                    gates.append(asyncio.Event())
                case "rebalance":
                    await intake.on_partitions_revoked([("t", 0)])
                    await intake.on_partitions_assigned([("t", 0)])
                    polls, position = [], group.committed.get(("t", 0), 0)
                case "crash":
                    for task in [*polls, *intake._groups, *intake._background]:
                        task.cancel()
                    await asyncio.gather(*polls, *intake._groups, return_exceptions=True)
                    intake, polls, position = fresh(), [], group.committed.get(("t", 0), 0)
                    state["running"] = 0
            holds(intake)
        for gate in gates:
            gate.set()
        await asyncio.gather(*polls)
        await intake.take([Rec(o) for o in range(position, total)], group)
        await settle(intake)
        holds(intake)
        await intake.close()

    asyncio.run(scenario())
    assert finished == set(range(total)), "a record was lost"
    assert group.committed == {("t", 0): total}
    assert state["most"] <= limit


async def test_a_slow_head_blocks_the_commit_and_bounds_what_is_taken_behind_it() -> None:
    gate = asyncio.Event()
    started: list[int] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        started.append(records[0].offset)
        if records[0].offset == 0:
            await gate.wait()
        return []

    group = Group()
    intake = make_intake(deliver, limit=3, backlog=8)
    taking = asyncio.create_task(intake.take([Rec(n) for n in range(30)], group))
    await asyncio.sleep(0.02)
    assert sorted(started) == list(range(8)), "the backlog bounds what stands behind a slow head"
    assert group.committed == {}, "nothing may be committed past an unfinished head"
    gate.set()
    await taking
    await settle(intake)
    assert group.committed == {("t", 0): 30}
    await intake.close()


async def test_a_waiting_record_takes_no_slot_and_keeps_its_offset_open() -> None:
    release = asyncio.Event()

    async def deliver(records: Sequence[Record]) -> list[Later]:
        return [(records[0], 0.005)] if records[0].offset == 0 and not release.is_set() else []

    group = Group()
    intake = make_intake(deliver, limit=1, backlog=50)
    await intake.take([Rec(n) for n in range(20)], group)
    await asyncio.sleep(0.02)
    assert group.committed == {}
    assert intake.running <= 1
    release.set()
    await settle(intake)
    assert group.committed == {("t", 0): 20}
    await intake.close()


async def test_revocation_drops_waiters_finishes_runners_and_starts_nothing_more() -> None:
    """All slots busy while a second member joins: a record that waits for a slot must not be started by the old owner."""
    gate = asyncio.Event()
    started: list[int] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        started.append(records[0].offset)
        await gate.wait()
        return []

    group = Group()
    intake = make_intake(deliver, limit=2, backlog=50, drain_s=5)
    await intake.on_partitions_assigned([("t", 0)])
    taking = asyncio.create_task(intake.take([Rec(n) for n in range(6)], group))
    await asyncio.sleep(0.01)
    assert started == [0, 1]
    revoking = asyncio.create_task(intake.on_partitions_revoked([("t", 0)]))
    await asyncio.sleep(0.01)
    # The old assignment stands until the join is answered: a poll may still bring records of the partition.
    late = asyncio.create_task(intake.take([Rec(6)], group))
    await asyncio.sleep(0.01)
    gate.set()
    await late
    await revoking
    await taking
    await asyncio.sleep(0.01)
    assert started == [0, 1], "records of a revoked partition were started"
    assert group.committed == {("t", 0): 2}, "what finished in the drain is committed before the partition goes"
    await intake.on_partitions_assigned([("t", 0)])
    await intake.take([Rec(n) for n in range(2, 6)], group)
    await settle(intake)
    assert started == [0, 1, 2, 3, 4, 5]
    assert group.committed == {("t", 0): 6}
    await intake.close()


async def test_a_call_that_outlasts_the_drain_goes_on_but_commits_nothing() -> None:
    gate = asyncio.Event()
    finished: list[int] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        await gate.wait()
        finished.append(records[0].offset)
        return []

    group = Group()
    intake = make_intake(deliver, limit=2, revoke_drain_s=0.01)
    await intake.on_partitions_assigned([("t", 0)])
    await intake.take([Rec(7)], group)
    await intake.on_partitions_revoked([("t", 0)])
    await intake.on_partitions_assigned([("t", 0)])
    gate.set()
    await asyncio.sleep(0.01)
    await intake.commit()
    assert finished == [7], "a paid call is never cancelled by a revocation"
    assert group.committed == {}
    await intake.close()


async def test_parked_stage_takes_nothing_and_resumes_by_itself() -> None:
    up = asyncio.Event()
    tries: dict[int, int] = defaultdict(int)

    async def deliver(records: Sequence[Record]) -> list[Later]:
        tries[records[0].offset] += 1
        if not up.is_set():
            raise Unavailable("ledger", "down")
        return []

    group = Group()
    intake = make_intake(deliver, make_parking(up), limit=2, backlog=50)
    taking = asyncio.create_task(intake.take([Rec(n) for n in range(10)], group))
    await asyncio.sleep(0.03)
    assert intake.parked == ("ledger",)
    assert len(tries) <= 3, "a parked stage goes on taking records"
    assert max(tries.values()) <= 2, "a parked record is tried in a spin"
    up.set()
    await taking
    await settle(intake)
    assert group.committed == {("t", 0): 10}
    assert intake.parked == ()
    await intake.close()


async def test_close_drains_what_runs_and_leaves_the_rest_to_the_next_owner() -> None:
    finished: list[int] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        await asyncio.sleep(0.02)
        finished.append(records[0].offset)
        return []

    group = Group()
    intake = make_intake(deliver, limit=2, drain_s=2)
    taking = asyncio.create_task(intake.take([Rec(n) for n in range(8)], group))
    await asyncio.sleep(0.005)
    await intake.close()
    await taking
    assert finished == [0, 1]
    assert group.committed == {("t", 0): 2}


async def test_a_stop_does_not_wait_for_a_commit_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Group):
        async def commit(self, offsets: dict[Partition, int]) -> None:
            await asyncio.Event().wait()

    async def deliver(records: Sequence[Record]) -> list[Later]:
        return []

    monkeypatch.setattr("workers.runtime.intake.LAST_COMMIT_S", 0.01)
    intake = make_intake(deliver)
    await intake.take([Rec(0)], Away())
    await asyncio.wait_for(intake.close(), 5)


async def test_an_unexpected_error_is_fatal_and_commits_nothing_past_it() -> None:
    async def deliver(records: Sequence[Record]) -> list[Later]:
        if records[0].offset == 1:
            raise RuntimeError("a dead letter cannot be written")
        return []

    group = Group()
    intake = make_intake(deliver)
    await intake.take([Rec(n) for n in range(4)], group)
    with pytest.raises(RuntimeError, match="dead letter"):
        await asyncio.wait_for(intake.fatal, 1)
    await asyncio.sleep(0.01)
    await intake.commit()
    assert group.committed == {("t", 0): 1}
    await intake.close()


async def test_records_out_of_order_are_fatal_and_not_skipped() -> None:
    async def deliver(_records: Sequence[Record]) -> list[Later]:
        return [(_records[0], 60.0)]

    group = Group()
    intake = make_intake(deliver)
    await intake.take([Rec(7)], group)
    await intake.take([Rec(3)], group)
    with pytest.raises(OutOfOrder, match="offset 3 after 7"):
        await asyncio.wait_for(intake.fatal, 1)
    await intake.take([Rec(0, partition=1)], group)
    assert intake.uncommitted == 1, "after it nothing is taken any more"
    await intake.close()
    assert group.committed == {}


async def test_a_failed_commit_is_tried_again() -> None:
    failures: list[int] = []

    async def deliver(_records: Sequence[Record]) -> list[Later]:
        return []

    group = Group(fails=2)
    intake = make_intake(deliver, on_commit_failure=lambda: failures.append(1))
    await intake.take([Rec(0)], group)
    async with asyncio.timeout(20):
        while not group.committed:  # noqa: ASYNC110  looked at from outside on purpose
            await asyncio.sleep(0.001)
    assert group.committed == {("t", 0): 1}
    assert len(failures) == 2
    await intake.close()


async def test_work_of_several_steps_is_not_stalled_while_they_end() -> None:
    """Three models that hang, one after another: together longer than any stall, and each ends in time."""
    done, step_at = asyncio.Event(), time.monotonic()

    async def deliver(_records: Sequence[Record]) -> list[Later]:
        await done.wait()
        return []

    intake = make_intake(deliver, step_at=lambda: step_at)
    await intake.take([Rec(0)], Group())
    intake.progressed_at -= 100
    step_at -= 200
    assert intake.stalled_s >= 100
    step_at += 150
    assert 50 <= intake.stalled_s < 100
    done.set()
    await settle(intake)
    await intake.close()
