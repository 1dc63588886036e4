"""Attempts that were lost to a full GPU, and the setting that says how GPUs are shared."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KINDS = ("worker", "memory", "device_memory", "hung", "node", "preempted", "driver")
_CHECK = "ledger_attempt_loss_check"


def upgrade() -> None:
    """Let attempts be lost for ``device_memory``; rename the setting in stored specifications."""
    kinds = ", ".join(f"'{kind}'" for kind in _KINDS)
    condition = f"loss IN ({kinds})"
    if op.get_context().dialect.name == "sqlite":
        _make_attempts_anew(condition)
    else:
        op.drop_constraint(op.f(_CHECK), "ledger_attempt", type_="check")
        op.create_check_constraint(op.f(_CHECK), "ledger_attempt", condition)
    _rename_setting("gpus_per_worker", "gpu_share")


def _make_attempts_anew(condition: str) -> None:
    """Give SQLite's table another check, which it cannot change; metrics refer to the table."""
    op.execute("PRAGMA defer_foreign_keys = ON")  # until the end of this transaction
    op.execute("CREATE TABLE ledger_attempt_0004 AS SELECT * FROM ledger_attempt")
    op.drop_table("ledger_attempt")
    op.create_table(
        "ledger_attempt",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("ledger_trial.id"), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String(16)),
        sa.Column("error", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("loss", sa.String(16)),
        sa.CheckConstraint(
            "outcome IN ('completed', 'stopped', 'failed', 'lost', 'cancelled')",
            name=op.f("ledger_attempt_outcome_check"),
        ),
        sa.CheckConstraint(condition, name=op.f(_CHECK)),
    )
    columns = "trial_id, n, node, pid, started_at, ended_at, outcome, error, run_id, loss"
    op.execute(f"INSERT INTO ledger_attempt ({columns}) SELECT {columns} FROM ledger_attempt_0004")
    op.drop_table("ledger_attempt_0004")


def _rename_setting(old: str, new: str) -> None:
    """Give a setting of ``resources`` its new name in every specification."""
    sweeps = sa.table("ledger_sweep", sa.column("id", sa.Integer), sa.column("spec", sa.JSON))
    connection = op.get_bind()
    for number, spec in connection.execute(sa.select(sweeps.c.id, sweeps.c.spec)).all():
        resources = spec.get("resources", {})
        if old in resources:
            resources[new] = resources.pop(old)
            connection.execute(sa.update(sweeps).where(sweeps.c.id == number).values(spec=spec))
