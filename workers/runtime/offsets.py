"""Which records of which partitions are under way, and how far each partition may be committed. Pure bookkeeping, no I/O.

Invariants, held by property tests: only the contiguous finished prefix of a partition is ever committable; what was started under
an earlier assignment can neither move nor block the present one; `open` never lies about how many records stand uncommitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

Partition = tuple[str, int]
"""(topic, partition): aiokafka's TopicPartition is such a tuple."""


class OutOfOrder(Exception):
    """A record came after a later one of its partition: it was polled under another assignment, or somebody seeks."""


@dataclass(slots=True)
class Ticket:
    """One started record. Dead once its partition has been revoked: finishing it then means nothing."""

    partition: Partition
    offset: int
    finished: bool = False


class Offsets:
    def __init__(self) -> None:
        self._open: dict[Partition, deque[Ticket]] = {}
        self._ready: dict[Partition, int] = {}
        self._refused: set[Partition] = set()

    @property
    def open(self) -> int:
        """Started records that are not yet in a committable prefix."""
        return sum(len(queue) for queue in self._open.values())

    def accepts(self, partition: Partition) -> bool:
        return partition not in self._refused

    def start(self, partition: Partition, offset: int) -> Ticket | None:
        """Take a record on. None: its partition is being revoked, and the next owner will read it again."""
        if partition in self._refused:
            return None
        queue = self._open.setdefault(partition, deque())
        if queue and offset <= queue[-1].offset:
            raise OutOfOrder(f"{partition}: offset {offset} after {queue[-1].offset}: records of a partition come in order")
        ticket = Ticket(partition, offset)
        queue.append(ticket)
        return ticket

    def finish(self, ticket: Ticket) -> None:
        ticket.finished = True
        queue = self._open.get(ticket.partition)
        while queue and queue[0].finished:
            self._ready[ticket.partition] = queue.popleft().offset + 1

    def committable(self) -> dict[Partition, int]:
        """The next offset to read, by partition: what Kafka calls the committed offset. Stays until `committed` takes it off."""
        return dict(self._ready)

    def committed(self, offsets: dict[Partition, int]) -> None:
        for partition, offset in offsets.items():
            if self._ready.get(partition) == offset:
                del self._ready[partition]

    def refuse(self, partitions: Iterable[Partition]) -> None:
        """From the first moment of a revocation: nothing more of these is started, though the old assignment still stands."""
        self._refused.update(partitions)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget these. Their unfinished records belong to the next owner; tickets out there are dead."""
        for partition in partitions:
            self._refused.add(partition)
            self._ready.pop(partition, None)
            self._open.pop(partition, None)

    def assign(self) -> None:
        """A new assignment stands: what was refused may be ours again, read anew from its committed offset."""
        self._refused.clear()
