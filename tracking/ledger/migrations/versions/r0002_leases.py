"""A lease for each sweep; Alembic notes the revision from here on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the leases; nobody holds a sweep yet."""
    op.create_table(
        "ledger_lease",
        sa.Column(
            "sweep_id",
            sa.Integer,
            sa.ForeignKey("ledger_sweep.id"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("birth", sa.Text, nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.drop_table("ledger_schema")
