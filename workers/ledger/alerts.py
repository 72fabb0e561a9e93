"""Alerts in the ledger: stored once, then published, then noted. Whoever stored one publishes it; when that worker is lost, another does.

The unique key is what an alert is about (kind, scope, window, its start), not the policy that asked for it: an edited policy finds the row
and is silent. Of one about a limit, a lower level than was told is no news. A crash between the publish and its note publishes the same
bytes again, with the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schemas import Alert
from schemas.alert import AlertKind
from workers.ledger.connection import Connection
from workers.ledger.given import clock, read_clock
from workers.ledger.tables import alert, worker

KEPT = timedelta(days=40)
"""Of published alerts, since their window began: longer than any window."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at, before it is known whether anybody was told."""

    kind: AlertKind
    scope: dict[str, str]
    window: str
    starts_at: datetime
    message: str
    evidence: dict[str, Any]
    about: str = ""
    """What tells two of one scope and window apart: the kind of a budget, `usd` or `tokens`."""
    level: int = 0
    """Ten-thousandths of a limit; 0: there is but one."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A stored alert that is to be published: `body` is an `Alert`, `scope` its key."""

    id: str
    kind: str
    scope: str
    body: bytes


AT_ONCE = 500
"""Alerts taken, and noted as published, at a time: a statement names as many ids, and PostgreSQL allows 32,767."""

Subject = tuple[datetime, str, str, str, str]
"""What an alert is about, level aside: start, kind, scope, about, window."""
_SUBJECT = (alert.c.starts_at, alert.c.kind, alert.c.scope, alert.c.about, alert.c.window)


async def unheard(connection: Connection, findings: Sequence[Finding]) -> list[Finding]:
    """Those that nobody was told of yet. Reads only: what is known already is the usual case."""
    starts = {finding.starts_at for finding in findings}
    told = sa.select(*_SUBJECT, sa.func.max(alert.c.level).label("level")).where(alert.c.starts_at.in_(starts)).group_by(*_SUBJECT)
    levels = {tuple(row[:5]): row.level for row in await connection.execute(told)} if findings else {}
    return [finding for finding in findings if levels.get(_subject(finding), -1) < finding.level]


async def store(connection: Connection, findings: Sequence[Finding], owner: str) -> int:
    """Store those that nobody was told of; how many those were. `owner` is the worker that will publish them."""
    new = await unheard(connection, findings)
    if not new:
        return 0
    at = await read_clock(connection)
    rows = [_row(finding, at, owner) for finding in sorted(new, key=_subject)]  # in one order, or two workers could deadlock
    stored = await connection.execute(insert(alert).values(rows).on_conflict_do_nothing().returning(alert.c.id))
    return len(stored)


def _subject(finding: Finding) -> Subject:
    return finding.starts_at, finding.kind, scope_text(finding.scope), finding.about, finding.window


def scope_text(scope: dict[str, str]) -> str:
    """As the counters have it: one scope, one text."""
    return json.dumps(scope, sort_keys=True, ensure_ascii=False)


def _row(finding: Finding, at: datetime, owner: str) -> dict[str, Any]:
    start, kind, scope, about, window = _subject(finding)
    subject = json.dumps([start.isoformat(), kind, scope, about, window, finding.level], ensure_ascii=False)
    alert_id = hashlib.sha256(subject.encode()).hexdigest()[:32]
    told = Alert(alert_id=alert_id, kind=finding.kind, scope=finding.scope, at=at, message=finding.message, evidence=finding.evidence)
    return {
        "id": alert_id,
        "kind": kind,
        "scope": scope,
        "about": about,
        "window": window,
        "starts_at": start,
        "level": finding.level,
        "at": at,
        "body": told.model_dump_json().encode(),
        "worker": owner,
    }


def _mine(owner: str, now: datetime, stale_s: float) -> sa.ColumnElement[bool]:
    alive = sa.exists().where(worker.c.id == alert.c.worker, worker.c.beat > now - timedelta(seconds=stale_s))
    return alert.c.published_at.is_(None) & ((alert.c.worker == owner) | ~alive)


async def unsent(connection: Connection, owner: str, stale_s: float) -> bool:
    """Is there an alert that this worker must publish: its own, or one of a worker that is lost? Reads only."""
    now = await read_clock(connection)
    return bool(await connection.execute(sa.select(alert.c.id).where(_mine(owner, now, stale_s)).limit(1)))


async def take(connection: Connection, owner: str, stale_s: float) -> list[Unsent]:
    """The oldest alerts that this worker must publish, `AT_ONCE` at most, in order. Nobody else will while it lives."""
    now = await read_clock(connection)
    oldest = sa.select(alert.c.id).where(_mine(owner, now, stale_s)).order_by(alert.c.at, alert.c.id).limit(AT_ONCE)
    taken = sa.update(alert).where(alert.c.id.in_(oldest), _mine(owner, now, stale_s)).values(worker=owner)
    rows = await connection.execute(taken.returning(alert.c.id, alert.c.kind, alert.c.scope, alert.c.body, alert.c.at))
    return [Unsent(r.id, r.kind, r.scope, r.body) for r in sorted(rows, key=lambda r: (r.at, r.id))]


async def note_sent(connection: Connection, ids: Collection[str]) -> None:
    """These are on the topic."""
    await connection.execute(sa.update(alert).where(alert.c.id.in_(ids)).values(published_at=clock()))


async def purge(connection: Connection, now: datetime) -> None:
    """Forget the alerts of windows long over."""
    await connection.execute(sa.delete(alert).where(alert.c.starts_at <= now - KEPT, alert.c.published_at.is_not(None)))
