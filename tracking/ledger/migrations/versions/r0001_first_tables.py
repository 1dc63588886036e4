"""The tables of the first ledgers, which noted their version in one of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    schema = op.create_table(
        "ledger_schema",
        sa.Column("version", sa.Integer, primary_key=True),
    )
    op.bulk_insert(schema, [{"version": 1}])
    op.create_table(
        "ledger_sweep",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("spec_hash", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("artifacts", sa.JSON, nullable=False),
        sa.Column("experiment_id", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("rev", sa.Integer, nullable=False),
        sa.Column("published_rev", sa.Integer, nullable=False),
        sa.UniqueConstraint("name", name=op.f("ledger_sweep_name_key")),
        sa.CheckConstraint(
            "state IN ('running', 'completed', 'interrupted', 'failed')",
            name=op.f("ledger_sweep_sweepstate_check"),
        ),
    )
    op.create_table(
        "ledger_trial",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sweep_id", sa.Integer, sa.ForeignKey("ledger_sweep.id"), nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("takeovers", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("cause", sa.Text),
        sa.Column("reused_from", sa.Integer, sa.ForeignKey("ledger_trial.id")),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("rev", sa.Integer, nullable=False),
        sa.Column("published_rev", sa.Integer, nullable=False),
        sa.UniqueConstraint("sweep_id", "uid", name=op.f("ledger_trial_sweep_id_uid_key")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'completed', 'stopped', 'failed', 'cancelled')",
            name=op.f("ledger_trial_trialstate_check"),
        ),
    )
    ahead = sa.text("rev > published_rev")
    op.create_index("ledger_trial_state", "ledger_trial", ["sweep_id", "state"])
    op.create_index("ledger_trial_uid", "ledger_trial", ["uid", "state"])
    op.create_index(
        "ledger_trial_outbox",
        "ledger_trial",
        ["sweep_id", "id"],
        sqlite_where=ahead,
        postgresql_where=ahead,
    )
    op.create_table(
        "ledger_entry",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sweep_id", sa.Integer, sa.ForeignKey("ledger_sweep.id"), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("ledger_trial.id"), nullable=False),
        sa.Column("proposal", sa.JSON),
        sa.Column("at", moment, nullable=False),
        sa.UniqueConstraint(
            "sweep_id",
            "role",
            "arm",
            "target",
            "index",
            name=op.f("ledger_entry_sweep_id_role_arm_target_index_key"),
        ),
        sa.CheckConstraint(
            "role IN ('baseline', 'search', 'confirm', 'control', 'latency')",
            name=op.f("ledger_entry_role_check"),
        ),
    )
    op.create_index("ledger_entry_trial", "ledger_entry", ["trial_id"])
    op.create_table(
        "ledger_attempt",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("ledger_trial.id"), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("ended_at", moment),
        sa.Column("outcome", sa.String(16)),
        sa.Column("error", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.CheckConstraint(
            "outcome IN ('completed', 'stopped', 'failed', 'lost', 'cancelled')",
            name=op.f("ledger_attempt_outcome_check"),
        ),
    )
    op.create_table(
        "ledger_metric",
        sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Double),
        sa.Column("at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id", "attempt"], ["ledger_attempt.trial_id", "ledger_attempt.n"]
        ),
        sqlite_with_rowid=False,
    )
