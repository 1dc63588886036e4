"""What is asked of a sweep from beside its driver, and what its driver says of itself."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add requests to stop, what was cancelled, and a note on the lease."""
    op.add_column("ledger_sweep", sa.Column("stop_epoch", sa.Integer))
    op.add_column("ledger_sweep", sa.Column("cancelled", sa.JSON(none_as_null=True)))
    op.add_column("ledger_lease", sa.Column("note", sa.JSON(none_as_null=True)))
