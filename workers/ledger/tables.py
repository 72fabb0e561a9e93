"""The ledger's tables, the same in SQLite and PostgreSQL. `migrations/` makes them; a test holds the two together.

Money columns are integers of 1e-10 dollars (`types.UNIT`): SQLite's NUMERIC is a float. Times are UTC. Everything here is data; what the
rows mean when something fails stands with the verbs.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
        "fk": "%(table_name)s_%(column_0_N_name)s_fk",
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite has none, so its text is naive UTC there."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


RowId = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER PRIMARY KEY numbers itself in SQLite
Ids = sa.JSON().with_variant(postgresql.ARRAY(sa.BigInteger), "postgresql")


def _money(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _index_of_some(name: str, column: str, rows: str) -> sa.Index:
    return sa.Index(name, column, sqlite_where=sa.text(rows), postgresql_where=sa.text(rows))


worker = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("beat", Instant, nullable=False),
)

request = sa.Table(
    "request",
    metadata,
    sa.Column("id", RowId, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("body_hash", sa.Text, nullable=False),
    sa.Column("feature", sa.Text),
    sa.Column("user", sa.Text),
    sa.Column("experiment", sa.Text),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("status", sa.Text),  # NULL: under way
    sa.Column("reason_code", sa.Text),
    sa.Column("tier", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("response", sa.LargeBinary),  # the very bytes that are published; NULL again after the purge
    sa.Column("cost_record", sa.LargeBinary),  # of the newest revision
    _money("cost"),
    _money("unconfirmed"),
    _money("baseline"),
    _money("routing"),
    _money("cache"),
    _money("compression"),
    _money("batch"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    sa.Column("published_revision", sa.Integer, nullable=False, server_default="0"),
    sa.Column("ended_at", Instant),
    sa.UniqueConstraint("tenant", "request_id"),
    _index_of_some("request_unpublished_ix", "id", "revision > published_revision"),
    _index_of_some("request_kept_ix", "ended_at", "response IS NOT NULL"),
    _index_of_some("request_under_way_ix", "created_at", "ended_at IS NULL"),
)

price = sa.Table(  # content-addressed: a row never changes, so an attempt keeps the rates it was priced at
    "price",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("input", sa.Text, nullable=False),  # dollars per million tokens, as decimal text
    sa.Column("cached_input", sa.Text, nullable=False),
    sa.Column("cache_write", sa.Text, nullable=False),
    sa.Column("output", sa.Text, nullable=False),
    sa.Column("reasoning", sa.Text),  # NULL: as output
    sa.Column("above", sa.Text),  # JSON of the long-context rates, if there are any
    sa.Column("source", sa.Text, nullable=False),
)

attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("request", sa.BigInteger, sa.ForeignKey("request.id"), primary_key=True, autoincrement=False),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),  # (worker, seq) names the asker
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # No foreign key: every attempt would take a share lock on the one row of its price.
    sa.Column("price_id", sa.Text),  # NULL: the price is unknown
    sa.Column("reserved_usd", sa.BigInteger, nullable=False),
    sa.Column("reserved_tokens", sa.BigInteger, nullable=False),
    _count("input_tokens"),
    _count("cached_input_tokens"),
    _count("cache_write_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    _money("cost"),  # 0 while reserved; the worst case when unconfirmed
    _count("used_tokens"),  # what the token budgets count; the worst case when unconfirmed
    sa.Column("verdict", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("usage_ids", Ids, nullable=False),  # the counters it was reserved in: its windows are fixed here
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("settled_at", Instant),
    sa.CheckConstraint("state IN ('reserved', 'settled', 'unconfirmed', 'abandoned')", name="state"),
    _index_of_some("attempt_reserved_ix", "request", "state = 'reserved'"),
    # What the alerts look at. Rows lie in the order of this column, so a few bytes per hundred pages say where a day is.
    sa.Index("attempt_opened_ix", "opened_at", postgresql_using="brin"),
    _index_of_some("attempt_unconfirmed_ix", "opened_at", "state = 'unconfirmed'"),
    _index_of_some("attempt_unpriced_ix", "opened_at", "price_id IS NULL"),
    postgresql_with={"fillfactor": 70},  # each row is updated once, in its page
)

budget_usage = sa.Table(
    "budget_usage",
    metadata,
    sa.Column("id", RowId, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("starts_at", Instant, nullable=False),
    _count("reserved"),  # units of money, or tokens
    _count("spent"),
    sa.UniqueConstraint("scope", "kind", "window", "starts_at"),
    sa.Index("budget_usage_starts_at_ix", "starts_at"),
    sa.CheckConstraint("kind IN ('usd', 'tokens')", name="kind"),
    sa.CheckConstraint("reserved >= 0", name="reserved"),
    postgresql_with={"fillfactor": 30},  # hot rows: room for their next version in the page
)

alert = sa.Table(
    "alert",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # a digest of what it is about: whoever finds the same finds the same id
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),  # canonical JSON, as in budget_usage
    sa.Column("about", sa.Text, nullable=False),  # usd or tokens, for a budget
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("starts_at", Instant, nullable=False),
    sa.Column("level", sa.Integer, nullable=False),  # ten-thousandths of a limit; 0: there is but one
    sa.Column("at", Instant, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),  # the very bytes that are published
    sa.Column("worker", sa.Text, nullable=False),  # whose it is to publish
    sa.Column("published_at", Instant),
    sa.UniqueConstraint("starts_at", "kind", "scope", "about", "window", "level"),
    _index_of_some("alert_unpublished_ix", "at", "published_at IS NULL"),
)
