"""A role for the trials that latency predictors come from."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Let entries have the role ``predictor``."""
    name = op.f("ledger_entry_role_check")
    roles = "'baseline', 'predictor', 'search', 'confirm', 'control', 'latency'"
    is_sqlite = op.get_context().dialect.name == "sqlite"
    with op.batch_alter_table("ledger_entry", recreate="auto") as table:
        if not is_sqlite:  # there the table is made anew, without its old check
            table.drop_constraint(name, type_="check")
        table.create_check_constraint(name, f"role IN ({roles})")
