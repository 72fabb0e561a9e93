"""For any interleaving of starts, finishes, commits, revocations and crashes, no unfinished offset is ever committed, and none is lost.

The machine plays a broker with two partitions and one consumer; records that were started under an earlier assignment may finish at any
time later. What is asserted is what Kafka would see: the committed offset.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.runtime.offsets import Offsets, Partition, Ticket

PARTITIONS: tuple[Partition, ...] = (("t", 0), ("t", 1))
GAPS = (0, 0, 0, 1, 3)
"""Offsets may have gaps: compaction and transaction markers leave them."""


class Broker:
    """A method a step. Each step has a number, and takes of it what it needs: which partition, which record, how far."""

    def __init__(self) -> None:
        self.offsets = Offsets()
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.position = dict.fromkeys(PARTITIONS, 0)
        self.tickets: list[Ticket] = []
        self.finished: set[tuple[Partition, int]] = set()
        self.started_now: set[tuple[Partition, int]] = set()
        self.revoking: set[Partition] = set()

    def start(self, n: int) -> None:
        partition, gap = PARTITIONS[n % 2], GAPS[n // 2 % len(GAPS)]
        offset = self.position[partition] + gap
        ticket = self.offsets.start(partition, offset)
        if partition in self.revoking:
            assert ticket is None, "a record of a partition that is being revoked was started"
            return
        assert ticket is not None
        self.finished |= {(partition, skipped) for skipped in range(self.position[partition], offset)}
        self.position[partition] = offset + 1
        self.started_now.add((partition, offset))
        self.tickets.append(ticket)

    def finish(self, n: int) -> None:
        """Any that was ever started, in whichever assignment, and only once."""
        if self.tickets:
            ticket = self.tickets.pop(n % len(self.tickets))
            self.finished.add((ticket.partition, ticket.offset))
            self.offsets.finish(ticket)

    def commit(self, _n: int = 0) -> None:
        ready = self.offsets.committable()
        for partition, offset in ready.items():
            assert offset >= self.committed[partition], "a commit went backwards"
            self.committed[partition] = offset
        self.offsets.committed(ready)

    def commit_fails(self, _n: int) -> None:
        before = self.offsets.committable()
        assert self.offsets.committable() == before

    def begin_revocation(self, n: int) -> None:
        partitions = ({PARTITIONS[0]}, {PARTITIONS[1]}, set(PARTITIONS))[n % 3]
        self.offsets.refuse(partitions)
        self.revoking |= partitions

    def rebalance(self, _n: int) -> None:
        """Eager: everything is revoked, then assigned again and read from the committed offset."""
        self.commit()
        self.offsets.revoke(PARTITIONS)
        self.offsets.assign()
        self._read_again()

    def crash(self, _n: int) -> None:
        self.offsets = Offsets()
        self._read_again()

    def _read_again(self) -> None:
        self.revoking.clear()
        self.position = dict(self.committed)
        self.started_now.clear()

    def holds(self) -> None:
        for partition, offset in self.committed.items():
            missing = [o for o in range(offset) if (partition, o) not in self.finished]
            assert not missing, f"{partition} is committed to {offset}, and {missing} had not finished"
        assert len(self.started_now - self.finished) <= self.offsets.open <= len(self.started_now)


Step = tuple[Callable[[Broker, int], None], int]
SELDOM = (Broker.commit_fails, Broker.begin_revocation, Broker.rebalance, Broker.crash)
OFTEN = (Broker.start, Broker.start, Broker.start, Broker.finish, Broker.finish, Broker.commit)
STEPS = st.lists(st.tuples(st.sampled_from((*OFTEN, *SELDOM)), st.integers(0, 99)), max_size=80)


@settings(max_examples=500)
@given(STEPS)
def test_only_what_is_finished_is_committed_and_nothing_is_lost(steps: list[Step]) -> None:
    broker = Broker()
    for step, n in steps:
        step(broker, n)
        broker.holds()
    # Whatever happened: what is read again from the committed offset on, and finished, can be committed to its end.
    broker.rebalance(0)
    for n in range(20):
        broker.start(n)
    while broker.tickets:
        broker.finish(0)
    broker.commit()
    broker.holds()
    assert broker.committed == broker.position
    assert broker.offsets.open == 0


def test_a_commit_that_was_overtaken_takes_off_only_what_it_committed() -> None:
    offsets = Offsets()
    first, second = offsets.start(("t", 0), 0), offsets.start(("t", 0), 1)
    assert first is not None
    assert second is not None
    offsets.finish(first)
    sent = offsets.committable()
    offsets.finish(second)
    offsets.committed(sent)
    assert offsets.committable() == {("t", 0): 2}


def test_a_revoked_partition_has_nothing_to_commit_any_more() -> None:
    offsets = Offsets()
    ticket = offsets.start(("t", 0), 4)
    assert ticket is not None
    offsets.finish(ticket)
    offsets.revoke([("t", 0)])
    offsets.assign()
    assert offsets.committable() == {}, "the next owner may be further by now"
