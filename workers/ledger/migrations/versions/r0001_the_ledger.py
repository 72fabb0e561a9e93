"""The ledger: workers, requests, prices, attempts, budget counters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Ids = sa.JSON().with_variant(postgresql.ARRAY(sa.BigInteger), "postgresql")
Time = sa.TIMESTAMP(timezone=True)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def upgrade() -> None:
    op.create_table(
        "worker",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("beat", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="worker_pk"),
    )
    op.create_table(
        "request",
        sa.Column("id", Id, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("feature", sa.Text),
        sa.Column("user", sa.Text),
        sa.Column("experiment", sa.Text),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("status", sa.Text),
        sa.Column("reason_code", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("response", sa.LargeBinary),
        sa.Column("cost_record", sa.LargeBinary),
        _number("cost"),
        _number("unconfirmed"),
        _number("baseline"),
        _number("routing"),
        _number("cache"),
        _number("compression"),
        _number("batch"),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("published_revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("ended_at", Time),
        sa.PrimaryKeyConstraint("id", name="request_pk"),
        sa.UniqueConstraint("tenant", "request_id", name="request_tenant_request_id_uq"),
    )
    for name, column, rows in (
        ("request_unpublished_ix", "id", "revision > published_revision"),
        ("request_kept_ix", "ended_at", "response IS NOT NULL"),
        ("request_under_way_ix", "created_at", "ended_at IS NULL"),
    ):
        op.create_index(name, "request", [column], sqlite_where=sa.text(rows), postgresql_where=sa.text(rows))
    op.create_table(
        "price",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("cached_input", sa.Text, nullable=False),
        sa.Column("cache_write", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("reasoning", sa.Text),
        sa.Column("above", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="price_pk"),
    )
    op.create_table(
        "attempt",
        sa.Column("request", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("n", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("price_id", sa.Text),
        sa.Column("reserved_usd", sa.BigInteger, nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False),
        _number("input_tokens"),
        _number("cached_input_tokens"),
        _number("cache_write_tokens"),
        _number("output_tokens"),
        _number("reasoning_tokens"),
        _number("cost"),
        _number("used_tokens"),
        sa.Column("verdict", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("usage_ids", Ids, nullable=False),
        sa.Column("opened_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("settled_at", Time),
        sa.PrimaryKeyConstraint("request", "n", name="attempt_pk"),
        sa.CheckConstraint("state IN ('reserved', 'settled', 'unconfirmed', 'abandoned')", name=op.f("attempt_state_ck")),
        sa.ForeignKeyConstraint(["request"], ["request.id"], name="attempt_request_fk"),
        postgresql_with={"fillfactor": 70},
    )
    reserved = sa.text("state = 'reserved'")
    op.create_index("attempt_reserved_ix", "attempt", ["request"], sqlite_where=reserved, postgresql_where=reserved)
    op.create_table(
        "budget_usage",
        sa.Column("id", Id, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.Column("starts_at", Time, nullable=False),
        _number("reserved"),
        _number("spent"),
        sa.PrimaryKeyConstraint("id", name="budget_usage_pk"),
        sa.UniqueConstraint("scope", "kind", "window", "starts_at", name="budget_usage_scope_kind_window_starts_at_uq"),
        sa.CheckConstraint("kind IN ('usd', 'tokens')", name=op.f("budget_usage_kind_ck")),
        sa.CheckConstraint("reserved >= 0", name=op.f("budget_usage_reserved_ck")),
        postgresql_with={"fillfactor": 30},
    )


def downgrade() -> None:
    raise NotImplementedError("the books only go forward; restore a backup")
