"""Why an attempt was lost; a trial counts only what it may be to blame for."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Let attempts say why they were lost, and take out what a trial need not count."""
    kinds = ("worker", "memory", "hung", "node", "preempted", "driver")
    names = ", ".join(f"'{kind}'" for kind in kinds)
    op.execute(  # as text: metrics refer to the table, so SQLite may not make it anew
        "ALTER TABLE ledger_attempt ADD COLUMN loss VARCHAR(16) "
        f"CONSTRAINT ledger_attempt_loss_check CHECK (loss IN ({names}))"
    )
    op.execute("UPDATE ledger_trial SET losses = losses - takeovers")
    op.drop_column("ledger_trial", "takeovers")
