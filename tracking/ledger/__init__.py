"""The ledger: the database that says what happened, and the only one that is asked (SQLAlchemy)."""
