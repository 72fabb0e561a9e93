"""The ledger: no paid call without its own row, written first; no request charged twice; no budget passed.

`open`, `settle` and `end` take batches and may be repeated after an `Unavailable`: none of them counts twice. When the database cannot be
reached every method raises `Unavailable("ledger", …)` and nothing is sent or published on its behalf (what guards money fails closed).
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import partial

import sqlalchemy as sa

from schemas import UNCLAIMED
from workers.ledger.connection import Connection
from workers.ledger.database import TIMEOUT_S, Database
from workers.ledger.end import end_batch, values_of
from workers.ledger.open import Forgotten, Lost, Seen, add_prices, open_batch, unseen_prices
from workers.ledger.ordinary import candidates, end_frozen, grant_new, read_frozen, settle_reserved
from workers.ledger.owner import Heartbeat, new_owner
from workers.ledger.rows import Key, key_of
from workers.ledger.settle import AttemptKey, settle_batch
from workers.ledger.sweep import CHUNK, find_lost, find_unpublished, mark_published, purge_chunk, write_off_lost
from workers.ledger.types import Ask, Closed, Ending, Granted, Opened, Revised, Settled, Settlement, Stored
from workers.ledger.watch import Watch
from workers.outcomes import Unavailable

UNCOUNTED = 100_000
"""Kept at most: what is not settled, or elsewhere, stays in the set."""


class Ledger:
    """The ledger at `url`, which `migrate.upgrade` has made.

    `heartbeat_s` and `stale_s` are seconds, and so is `timeout_s` of a transaction; `keep_days` is how long answers and responses are
    kept; `pool_size` connections serve the verbs (SQLite: one), one more the heartbeat. `name` begins this process's id in the `worker`
    table.
    """

    def __init__(
        self,
        url: str,
        *,
        heartbeat_s: float,
        stale_s: float,
        keep_days: float,
        pool_size: int,
        timeout_s: float = TIMEOUT_S,
        name: str | None = None,
    ) -> None:
        self.owner = new_owner(name)
        self._stale_s = stale_s
        self._keep = timedelta(days=keep_days)
        self._database = Database(url, pool_size, timeout_s)
        self._beats = Database(url, 1, timeout_s=min(timeout_s, stale_s / 3))  # a beat that hangs is given up while another still helps
        self._heartbeat = Heartbeat(self._beats, self.owner, every_s=heartbeat_s, stale_s=stale_s)
        self._seen = Seen()
        self._uncounted: set[AttemptKey] = set()
        """Attempts that were granted here and that no budget counts, until they are settled. Only a shortcut."""
        self.watch = Watch(self._database, self.owner, stale_s)

    @property
    def fresh(self) -> bool:
        """The last heartbeat is young enough to send a call. Never true before `start`."""
        return self._heartbeat.fresh

    async def start(self) -> None:
        """Register this process and begin its heartbeat."""
        await self._heartbeat.start()

    async def close(self) -> None:
        """Stop the heartbeat, leave, close the connections. Attempts still reserved here may be taken over at once."""
        await self._heartbeat.stop()
        await self._beats.close()
        await self._database.close()

    async def check(self) -> None:
        """Raises `Unavailable` when the database does not answer, or when the last heartbeat is too old to send a call."""
        self._heartbeat.check()
        await self._database.transact(_select_one, reads_only=True)
        if self._heartbeat.started and not self.fresh:
            raise Unavailable("ledger", "the last heartbeat is too old to send a call")

    async def open(self, asks: list[Ask]) -> list[Opened]:
        """One answer an ask, in order.

        Raises:
            Unavailable: ask again; the same `seq` gets the same grant.
            ValueError: an amount or limit is negative or not a number, or there is no tenant.
            RuntimeError: not started; the attempts would have no owner.
        """
        if not self._heartbeat.started:
            raise RuntimeError("a ledger that is not started has no owner for its attempts")
        for ask in asks:
            _check_ask(ask)
        new = await self._grant_new(asks)
        answers = iter(await self._open([ask for n, ask in enumerate(asks) if n not in new]))
        return [new.get(n) or next(answers) for n in range(len(asks))]

    async def _grant_new(self, asks: list[Ask]) -> dict[int, Granted]:
        """The ordinary ones among them: their answers, by place."""
        new = candidates(asks) if self._database.on_postgres else {}
        if not new:
            return {}
        if unseen_prices(new.values(), self._seen):
            prices = await self._database.single(partial(add_prices, asks=new.values(), seen=self._seen))
            self._seen.add({}, {each for each in prices if each is not None})
        granted = await self._database.single(partial(grant_new, asks=new.values(), owner=self.owner))
        if len(self._uncounted) > UNCOUNTED:
            self._uncounted.clear()
        self._uncounted.update((*key, 1) for key in granted)
        places = {key_of(ask.facts): n for n, ask in reversed(list(enumerate(asks)))}
        return {places[key]: Granted(1, ()) for key in granted}

    async def _open(self, asks: list[Ask]) -> list[Opened]:
        while asks:
            work = partial(open_batch, asks=asks, owner=self.owner, stale_s=self._stale_s, seen=self._seen)
            try:
                answers, counters, prices = await self._database.transact(work)
            except Lost as lost:
                await self._write_off(lost.requests)
            except Forgotten:
                self._seen = Seen()
            else:
                self._seen.add(counters, prices)
                return answers
        return []

    async def settle(self, settlements: list[Settlement]) -> list[Settled]:
        """One answer a settlement, in order.

        Raises:
            Unavailable: settle again; a repeat changes nothing.
            ValueError: a cost is negative or not a number.
        """
        for each in settlements:
            if not each.cost.is_finite() or each.cost < 0:
                raise ValueError(f"{each.tenant}/{each.request_id}#{each.n}: a cost is zero or more dollars, not {each.cost}")
        new = await self._settle_reserved(settlements)
        rest = [each for n, each in enumerate(settlements) if n not in new]
        others = iter(await self._database.transact(partial(settle_batch, settlements=rest)) if rest else ())
        return [new.get(n) or next(others) for n in range(len(settlements))]

    async def _settle_reserved(self, settlements: list[Settlement]) -> dict[int, Settled]:
        """The ordinary ones among them: their answers, by place."""
        places: dict[AttemptKey, int] = {}
        for n, each in enumerate(settlements):
            places.setdefault((each.tenant, each.request_id, each.n), n)
        first = {key: settlements[n] for key, n in places.items() if key in self._uncounted}
        ordinary = {key: each for key, each in first.items() if each.state == "settled"}
        if not ordinary:
            return {}
        settled = await self._database.single(partial(settle_reserved, settlements=ordinary))
        self._uncounted -= ordinary.keys()
        return {places[key]: answer for key, answer in settled.items()}

    async def end(self, endings: list[Ending]) -> list[Closed]:
        """One answer an ending, in order. `Ending.state` may be called more than once.

        Raises:
            Unavailable: end again; the first ending stays.
            ValueError: the ending does not claim its id, so it has no place here; or there is no tenant.
        """
        for each in endings:
            if each.reason_code in UNCLAIMED:
                raise ValueError(f"{each.facts.key}: an ending with {each.reason_code} does not claim the id")
        frozen = await self._end_frozen(endings)
        rest = [each for n, each in enumerate(endings) if n not in frozen]
        others = iter(await self._database.transact(partial(end_batch, endings=rest, stale_s=self._stale_s)) if rest else ())
        return [frozen.get(n) or next(others) for n in range(len(endings))]

    async def _end_frozen(self, endings: list[Ending]) -> dict[int, Stored]:
        """The ordinary ones among them: their answers, by place."""
        places: dict[Key, int] = {}
        for n, each in enumerate(endings):
            places.setdefault(key_of(each.facts), n)
        answered = {key: endings[n] for key, n in places.items() if endings[n].source == "model"} if self._database.on_postgres else {}
        if not answered:
            return {}
        found = await self._database.single(partial(read_frozen, endings=answered))
        stated = {key: answered[key].state(books) for key, (_, books) in found.items()}
        values = [{"id": id_} | values_of(answered[key], stated[key], books) for key, (id_, books) in found.items()]
        ended = await self._database.single(partial(end_frozen, values=values)) if values else set()
        new = {key: stated[key] for key, (id_, _) in found.items() if id_ in ended}
        return {places[key]: Stored(each.response, each.cost_record, first=True) for key, each in new.items()}

    async def sweep(self) -> list[Revised]:
        """Write off the attempts whose owner is lost, and return the revisions that have not been published; call `published` with them
        once they are."""
        while True:
            lost = await self._database.transact(partial(find_lost, stale_s=self._stale_s), reads_only=True)
            if lost:
                await self._write_off(lost)
            if len(lost) < CHUNK:
                return await self._database.transact(find_unpublished, reads_only=True)

    async def published(self, revised: list[Revised]) -> None:
        """These revisions are on the topic."""
        if revised:
            await self._database.transact(partial(mark_published, revised=revised))

    async def purge(self) -> int:
        """Forget responses and answers older than `keep_days`; of how many requests. Their rows and hashes stay."""
        total = 0
        while purged := await self._database.transact(partial(purge_chunk, keep=self._keep)):
            total += purged
        return total

    async def _write_off(self, requests: list[int]) -> None:
        await self._database.transact(partial(write_off_lost, requests=requests, stale_s=self._stale_s))


_ONE = sa.select(1)


async def _select_one(connection: Connection) -> None:
    await connection.execute(_ONE)


def _check_ask(ask: Ask) -> None:
    amounts: list[Decimal | int] = [ask.usd, ask.tokens, *(hold.limit for hold in ask.holds)]
    if not all(Decimal(amount).is_finite() and amount >= 0 for amount in amounts):
        raise ValueError(f"{ask.facts.key}: amounts and limits are zero or more")
