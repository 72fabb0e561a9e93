"""For any interleaving of starts, finishes, commits, revocations and crashes, no unfinished offset is ever committed, and none is lost.

The machine plays a broker with two partitions and one consumer; records that were started under an earlier assignment may finish at any
time later. What is asserted is what Kafka would see: the committed offset.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from workers.runtime.offsets import Offsets, Partition, Ticket

PARTITIONS: tuple[Partition, ...] = (("t", 0), ("t", 1))


class Broker(RuleBasedStateMachine):
    tickets = Bundle("tickets")

    @initialize()
    def start_up(self) -> None:
        self.offsets = Offsets()
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.position = dict.fromkeys(PARTITIONS, 0)
        self.finished: set[tuple[Partition, int]] = set()
        self.started_now: set[tuple[Partition, int]] = set()
        self.revoking: set[Partition] = set()

    @rule(target=tickets, partition=st.sampled_from(PARTITIONS), gap=st.sampled_from((0, 0, 0, 1, 3)))
    def start(self, partition: Partition, gap: int) -> object:
        """Offsets may have gaps: compaction and transaction markers leave them."""
        offset = self.position[partition] + gap
        for skipped in range(self.position[partition], offset):
            self.finished.add((partition, skipped))
        ticket = self.offsets.start(partition, offset)
        if partition in self.revoking:
            assert ticket is None, "a record of a partition that is being revoked was started"
            for skipped in range(self.position[partition], offset):
                self.finished.discard((partition, skipped))
            return multiple()
        assert ticket is not None
        self.position[partition] = offset + 1
        self.started_now.add((partition, offset))
        return ticket

    @rule(ticket=consumes(tickets))
    def finish(self, ticket: Ticket) -> None:
        self.finished.add((ticket.partition, ticket.offset))
        self.offsets.finish(ticket)

    @rule()
    def commit(self) -> None:
        ready = self.offsets.committable()
        for partition, offset in ready.items():
            assert offset >= self.committed[partition], "a commit went backwards"
            self.committed[partition] = offset
        self.offsets.committed(ready)

    @rule()
    def commit_fails(self) -> None:
        before = self.offsets.committable()
        assert self.offsets.committable() == before

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1))
    def begin_revocation(self, partitions: set[Partition]) -> None:
        self.offsets.refuse(partitions)
        self.revoking |= partitions

    @rule()
    def rebalance(self) -> None:
        """Eager: everything is revoked, then assigned again and read from the committed offset."""
        self.commit()
        self.offsets.revoke(PARTITIONS)
        self.offsets.assign()
        self.revoking.clear()
        self.position = dict(self.committed)
        self.started_now.clear()

    @rule()
    def crash(self) -> None:
        self.offsets = Offsets()
        self.revoking.clear()
        self.position = dict(self.committed)
        self.started_now.clear()

    @invariant()
    def committed_is_finished(self) -> None:
        if not hasattr(self, "committed"):
            return
        for partition, offset in self.committed.items():
            missing = [o for o in range(offset) if (partition, o) not in self.finished]
            assert not missing, f"{partition} is committed to {offset}, and {missing} had not finished"

    @invariant()
    def open_counts_what_blocks(self) -> None:
        if not hasattr(self, "offsets"):
            return
        unfinished = {p for p in self.started_now if p not in self.finished}
        assert self.offsets.open <= len(self.started_now)
        assert self.offsets.open >= len(unfinished)


TestBroker = Broker.TestCase
TestBroker.settings = settings(max_examples=600, stateful_step_count=40, deadline=None)


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
