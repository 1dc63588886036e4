"""The request to extend a sweep that is not fulfilled yet: it is known when it comes again."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the request."""
    op.add_column("ledger_sweep", sa.Column("extension", sa.JSON(none_as_null=True)))
