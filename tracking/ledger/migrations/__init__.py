"""How older ledgers become new ones: Alembic revisions, run by `tracking.ledger.schema`."""
