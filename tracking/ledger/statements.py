"""What the writer says to the database: statements that are put together once, not at every use."""

import sqlalchemy as sa

from tracking.ledger.tables import attempts, entries, sweeps, trials
from tracking.records import TrialState

EPOCH = (
    sa.select(sweeps.c.epoch, sweeps.c.owner)
    .where(sweeps.c.id == sa.bindparam("sweep"))
    .with_for_update(key_share=True)  # a take-over waits for this transaction; SQLite: IMMEDIATE
)
TRIAL = sa.select(trials).where(trials.c.id == sa.bindparam("trial"))
ENTRY_AT = sa.select(entries).where(
    *(
        entries.c[name] == sa.bindparam(name)
        for name in ("sweep_id", "role", "arm", "target", "index")
    )
)
JOIN_TRIAL = (
    sa.update(trials)
    .where(trials.c.sweep_id == sa.bindparam("sweep"), trials.c.uid == sa.bindparam("content"))
    .values(rev=trials.c.rev + 1)
    .returning(*trials.c)
)
ADD_ATTEMPT = sa.insert(attempts)
CLOSE_ATTEMPT = (
    sa.update(attempts)
    .where(
        attempts.c.trial_id == sa.bindparam("trial"),
        attempts.c.n == sa.bindparam("attempt"),
    )
    .values(
        outcome=sa.bindparam("how"),
        loss=sa.bindparam("loss"),
        error=sa.bindparam("why"),
        ended_at=sa.bindparam("now"),
    )
)
LOSSES = (
    sa.select(attempts.c.loss)
    .where(attempts.c.trial_id == sa.bindparam("trial"), attempts.c.ended_at.is_not(None))
    .order_by(attempts.c.n.desc())
    .limit(sa.bindparam("most"))
)
ADD_TRIAL = sa.insert(trials).returning(*trials.c)
DROP_ENTRY = sa.delete(entries).where(entries.c.id == sa.bindparam("entry"))
TOUCH_TRIAL = (
    sa.update(trials).where(trials.c.id == sa.bindparam("trial")).values(rev=trials.c.rev + 1)
)
ADD_ENTRY = sa.insert(entries).returning(*entries.c)

#: The first completed trial of a given content, in any sweep.
COMPLETED = (
    sa.select(trials)
    .where(trials.c.uid == sa.bindparam("content"), trials.c.state == TrialState.COMPLETED)
    .order_by(trials.c.id)
    .limit(1)
)
