"""What comes back on the topics for one run of the demo, put together by request. Records of other requests are passed over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas import UNCLAIMED, Compressed, CostRecord, Finished, Response, TokensAround
from workers import topics
from workers.cli.show import Seen
from workers.runtime.client import Offsets, Record

TAKES = (topics.COMPRESSED, topics.FINISHED, topics.RESPONSES, topics.COSTS)


@dataclass
class Inbox:
    about: dict[str, str]
    """What each request of the run shows, by its key (`tenant/request_id`)."""
    prefix: str
    """Of the topics' names."""
    responses: dict[str, Response] = field(default_factory=dict)
    records: dict[str, CostRecord] = field(default_factory=dict)
    tokens: dict[str, TokensAround] = field(default_factory=dict)
    finished: dict[str, Record] = field(default_factory=dict)

    def take(self, batch: Iterable[Record]) -> list[Seen]:
        """Note what was read; returns the endings that are new."""
        new = []
        for record in batch:
            if record.key is None or record.value is None:
                continue
            match record.topic.removeprefix(self.prefix):
                case topics.COMPRESSED.name:
                    event = Compressed.model_validate_json(record.value)
                    self.tokens[event.facts.key] = event.tokens
                case topics.FINISHED.name:
                    self.finished[Finished.model_validate_json(record.value).facts.key] = record
                case topics.COSTS.name:
                    self.records[record.key] = CostRecord.model_validate_json(record.value)
                case topics.RESPONSES.name if record.key in self.about and record.key not in self.responses:
                    self.responses[record.key] = Response.model_validate_json(record.value)
                    new.append(record.key)
        return [self.seen(key) for key in new]

    def complete(self, keys: Iterable[str]) -> bool:
        """Whether all of each is here: the response, the event it was made from, and its cost record where it must have one."""
        return all(key in self.finished and (r := self.responses.get(key)) and (key in self.records or _unclaimed(r)) for key in keys)

    def seen(self, key: str) -> Seen:
        return Seen(self.responses[key], self.about[key], self.tokens.get(key))

    def endings(self) -> list[Seen]:
        return [self.seen(key) for key in self.about if key in self.responses]

    def booked(self) -> list[CostRecord]:
        return [self.records[key] for key in self.about if key in self.records]

    def past_finished(self) -> Offsets:
        """Where a consumer of `llm.finished` stands once it has done with every ending seen so far."""
        past: Offsets = {}
        for record in self.finished.values():
            partition = (record.topic, record.partition)
            past[partition] = max(past.get(partition, 0), record.offset + 1)
        return past


def _unclaimed(response: Response) -> bool:
    return response.reason is not None and response.reason.code in UNCLAIMED
