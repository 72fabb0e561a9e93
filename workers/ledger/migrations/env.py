"""Runs the migrations on the connection that `migrate.upgrade` brings, inside its transaction: a failure leaves the ledger as it was."""

from alembic import context

from workers.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
