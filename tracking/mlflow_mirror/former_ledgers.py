"""What MLflow still shows of a ledger that is no more.

A sweep's parent run says by its tags which ledger it mirrors, and which life of the sweep in that:
see `tracking.mlflow_mirror.mirror.sweep_key`. A ledger that was removed and begun anew would
otherwise show every trial a second time as a result, beside those of the one before.
"""

import logging
from datetime import UTC, datetime

from tracking.mlflow_mirror.client import Mlflow, RunHandle
from tracking.mlflow_mirror.mirror import IS_RESULT, KEY, LEDGER, PARENT, SUPERSEDED

log = logging.getLogger("tracking.mlflow_mirror.publisher")


def supersede_former(mlflow: Mlflow, experiment_id: str, mine: RunHandle, ledger: str) -> None:
    """Mark what an earlier ledger at the same place showed: its runs are results no longer.

    A sweep of the same name in a ledger elsewhere is left alone. May be cut short at any moment
    and repeated: the parent is marked last.

    Args:
        mlflow: Where they are shown.
        experiment_id: The sweep's.
        mine: The parent run of the sweep as it is in the ledger now.
        ledger: Place of the ledger.
    """
    for parent in mlflow.search(experiment_id, {"prunesweep.is_parent": "true"}):
        if parent.id == mine.id or SUPERSEDED in parent.tags or parent.is_deleted:
            continue
        # a file that an earlier version wrote does not say; it belongs to the ledger beside it
        if parent.tags.get(LEDGER, ledger if mlflow.is_direct else "") != ledger:
            log.warning(
                "run %s shows a sweep of the same name in another ledger: tell them apart by the "
                "tag %s",
                *(parent.id, LEDGER),
            )
            continue
        shown = mlflow.search(experiment_id, {PARENT: parent.id, IS_RESULT: "true"})
        for child in shown:
            mlflow.log(child.id, tags={IS_RESULT: "false"})
        if parent.status == "RUNNING":
            mlflow.end(parent.id, "KILLED", int(datetime.now(UTC).timestamp() * 1000))
        mlflow.log(parent.id, tags={SUPERSEDED: mine.tags.get(KEY, mine.id)})
        log.warning(
            "the ledger was made anew: %d results of run %s are marked as superseded",
            *(len(shown), parent.id),
        )
