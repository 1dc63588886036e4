"""``layers.policy: auto`` is the policy that lets most go, and what is stored is that policy."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from methods import LayoutError
from orchestrator.agenda.front_controls import settled
from orchestrator.agenda.survey import as_it_began, survey
from orchestrator.commands.forecast import forecast
from orchestrator.errors import SpecError
from orchestrator.specification.changes import as_begun, forbidden_changes
from orchestrator.specification.loading import parse_spec
from orchestrator.specification.spec import SweepSpec
from orchestrator.sweep import Sweep
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.sweeps import OFF, Bench, specification
from tracking.ledger.ledger import Ledger
from workers.networks.shapes import layout_of
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec

HERE = "tests.orchestrator.agenda.test_auto_policy"


def hidden_layer(num_classes: int, in_channels: int) -> nn.Module:
    """Build a network whose hidden linear layer `every_layer` alone prunes."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU()),
        nn.Linear(16, num_classes),
    )


def asked(policy: str = "auto", **changes: Any) -> SweepSpec:
    fields = {"arms": ["l1"], "search": {"trials": 1}, "controls": OFF}
    model = f"{HERE}:hidden_layer"
    return specification(model=model, layers={"policy": policy}, **{**fields, **changes})


def policy_of(spec: SweepSpec) -> str:
    return settled(spec, survey(spec)).layers.policy


def test_it_is_the_policy_under_which_the_most_macs_can_go() -> None:
    most = {p: survey(asked(p)).filters.reachable[1] for p in ("inside_blocks", "every_layer")}
    assert most["every_layer"] > most["inside_blocks"]
    assert policy_of(asked()) == "every_layer"


def test_where_policies_are_level_the_first_is_taken() -> None:
    assert policy_of(specification(layers={"policy": "auto"})) == "inside_blocks"


def test_a_policy_that_an_arm_cannot_prune_by_is_not_taken() -> None:
    assert policy_of(asked(arms=["l1", "taylor"])) == "inside_blocks"


def test_what_is_stored_and_run_is_that_of_the_policy_itself(tmp_path: Path) -> None:
    on = survey(asked())
    by_auto, by_name = settled(asked(), on), asked("every_layer")
    assert by_auto == by_name
    assert by_auto.spec_hash == by_name.spec_hash
    bench = Bench(tmp_path)
    assert bench.drive(by_auto, SeededBackend(slots=2), on=on).over
    policies = {trial.spec["layers"]["policy"] for trial in bench.trials()}
    assert policies == {"every_layer"}


def test_the_same_file_goes_on_with_the_policy_a_sweep_began_with() -> None:
    begun = asked("inside_blocks")
    assert as_begun(asked(), begun) == begun
    assert forbidden_changes(begun, asked()) == []
    assert forbidden_changes(begun, asked("coupled")) != []
    on = survey(asked())
    assert on.filters.layout.policy.kind == "every_layer"
    assert as_it_began(on, asked(), begun).filters.layout.policy.kind == "inside_blocks"
    assert as_it_began(on, asked(), asked("every_layer")) is on


def test_a_forecast_of_a_sweep_that_has_begun_is_of_its_policy(tmp_path: Path) -> None:
    store = {"store": str(tmp_path)}
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        begun = asked("inside_blocks", tracking=store)
        ledger.create_sweep(begun.name, begun.model_dump(mode="json"), begun.spec_hash)
    found = forecast(Sweep(asked(tracking=store)))
    assert found["prunable"]["policy"] == "inside_blocks"


def test_a_network_of_which_nothing_may_go_is_refused() -> None:
    layers = {"policy": "auto", "protect": ["*"]}
    with pytest.raises(SpecError, match=r"layers: .*'inside_blocks' no layer of Sequential may be"):
        survey(parse_spec({**asked().model_dump(), "layers": layers}))


def test_a_layout_of_auto_is_of_the_policy_that_lets_most_go() -> None:
    auto, shape = LayerSettings(policy="auto"), (1, 8, 8)
    flat = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 4), nn.Flatten())
    assert layout_of(hidden_layer(3, 1), shape, auto).policy.kind == "every_layer"
    assert layout_of(flat, shape, auto).policy.kind == "inside_blocks"
    with pytest.raises(LayoutError, match="'inside_blocks' no layer of Sequential may be"):
        layout_of(nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten()), shape, auto)


def test_a_trial_names_a_policy() -> None:
    auto = LayerSettings(policy="auto")
    with pytest.raises(ValueError, match="a trial names the policy"):
        TrialSpec(
            kind="dense",
            model=ModelSettings(name="digits_net"),
            data=DataSettings(),
            data_hash="",
            recipe=Recipe(),
            layers=auto,
            seed=0,
        )
