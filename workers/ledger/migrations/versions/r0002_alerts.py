"""Alerts, and the indexes that the looks for them need."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Time = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.Column("starts_at", Time, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("published_at", Time),
        sa.PrimaryKeyConstraint("id", name="alert_pk"),
        sa.UniqueConstraint(
            "starts_at", "kind", "scope", "about", "window", "level", name="alert_starts_at_kind_scope_about_window_level_uq"
        ),
    )
    for name, table, column, rows in (
        ("alert_unpublished_ix", "alert", "at", "published_at IS NULL"),
        ("attempt_unconfirmed_ix", "attempt", "opened_at", "state = 'unconfirmed'"),
        ("attempt_unpriced_ix", "attempt", "opened_at", "price_id IS NULL"),
    ):
        op.create_index(name, table, [column], sqlite_where=sa.text(rows), postgresql_where=sa.text(rows))
    op.create_index("attempt_opened_ix", "attempt", ["opened_at"], postgresql_using="brin")
    op.create_index("budget_usage_starts_at_ix", "budget_usage", ["starts_at"])


def downgrade() -> None:
    raise NotImplementedError("the books only go forward; restore a backup")
