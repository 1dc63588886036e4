"""Roles for the trials that choose a learning rate, and for the best proposals of a search."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Let entries have the roles ``tune`` and ``finalist``."""
    name = op.f("ledger_entry_role_check")
    roles = "'baseline', 'predictor', 'tune', 'search', 'finalist', 'confirm', 'control', 'latency'"
    is_sqlite = op.get_context().dialect.name == "sqlite"
    with op.batch_alter_table("ledger_entry", recreate="auto") as table:
        if not is_sqlite:  # there the table is made anew, without its old check
            table.drop_constraint(name, type_="check")
        table.create_check_constraint(name, f"role IN ({roles})")
