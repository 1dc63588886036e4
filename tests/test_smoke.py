"""One real sweep from the command line: through Ray into the ledger, MLflow and a comparison.

Its network lies in the working folder, beside packages that have the names of prunesweep's own.
"""

from pathlib import Path

import pytest

from tests.orchestrator.command_line import ended, facts, write_spec
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.server import default_uri
from tracking.records import TrialState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.smoke,
    pytest.mark.xdist_group("ray"),
    # MLflow's own habits
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


#: A network of the user's, which needs prunesweep's packages.
NETWORK = """
from workers.models import build_model
from workers.settings import ModelSettings

def net(num_classes, in_channels):
    return build_model(ModelSettings(name="digits_net"), num_classes, in_channels)
"""


def test_a_sweep_runs_and_is_compared_and_shown_by_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a sweep without an address starts its own
    (tmp_path / "mine.py").write_text(NETWORK)
    for name in ("tracking", "workers"):  # which Ray puts before ours on the path of workers
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    code, out, err = ended(tmp_path, "run", write_spec(tmp_path, model="mine:net"))
    assert code == 0, err
    assert out.startswith("tiny (completed)")
    store = tmp_path / "prunesweep-data"
    with Ledger.open(f"sqlite:///{store}/ledger.db", create=False) as ledger:
        trials = ledger.trials(ledger.sweep("tiny").id)
    assert len(trials) == 4  # baseline, two re-runs, latency
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    (table,) = facts("compare", "tiny", "--format", "json", "--store", store)["tables"]
    assert any(row["name"] == "l1" for row in table["rows"])
    client = MlflowClient(tracking_uri=default_uri(store))
    experiment = client.get_experiment_by_name("prunesweep/tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    shown = {run.data.tags.get("prunesweep.trial"): run.info.status for run in runs}
    assert {trial.uid: "FINISHED" for trial in trials}.items() <= shown.items()
