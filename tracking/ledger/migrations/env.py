"""What Alembic runs around the revisions: in the caller's transaction, nothing of its own."""

from alembic import context

from tracking.ledger import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    version_table=tables.version.name,
)
context.run_migrations()
