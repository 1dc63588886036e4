"""Controls of a front sit where the network can come to, however little it may lose."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.agenda.front_controls import settled
from orchestrator.agenda.survey import survey
from orchestrator.errors import SpecError
from orchestrator.specification.changes import as_begun, forbidden_changes
from orchestrator.specification.loading import parse_spec
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.agenda.test_agenda import Play, of_role
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.sweeps import Bench, specification, surveyed
from tracking.matrix import matrix_of
from tracking.places import Role

#: How far the limits let the network be cut, and where its controls then sit.
MOST: dict[str, tuple[dict[str, Any], float, list[str]]] = {
    "0.2 %": ({"max_ratio": 0.01}, 0.002, ["macs-0.192936%"]),
    "10 %": ({"max_ratio": 0.07}, 0.1, ["macs-2.67%", "macs-5.31%", "macs-7.91%"]),
    "60 %": ({"max_ratio": 0.43}, 0.6, ["macs-25%", "macs-50%"]),
}


def front(**search: Any) -> SweepSpec:
    return specification(targets=None, search={"trials": 5, "window": 3, "proxy": True, **search})


def labels(spec: SweepSpec) -> list[str]:
    cells = matrix_of(spec.model_dump(mode="json")).of(Role.CONTROL)
    return [cell.target for cell in cells if cell.arm == "random"]


@pytest.mark.parametrize("name", MOST)
def test_a_sweep_of_a_network_that_may_lose_little_ends_well(name: str, tmp_path: Path) -> None:
    limits, most, at = MOST[name]
    asked = front(**limits)
    on = survey(asked)
    assert on.filters.reachable[1] == pytest.approx(most, rel=0.1)
    spec = settled(asked, on)
    bench = Bench(tmp_path)
    assert bench.drive(spec, SeededBackend(slots=3), on=on).over
    assert {trial.state for trial in bench.trials()} == {"completed"}
    controls = {entry.place.target for entry in bench.entries(role=Role.CONTROL, arm="random")}
    assert sorted(controls) == sorted(labels(spec)) == sorted(at)
    for trial in bench.trials_of(role=Role.CONTROL, arm="uniform_l1"):
        assert trial.result is not None
        assert 0.0 < trial.result["macs_reduction"] <= most * 1.1


@pytest.mark.parametrize("search", [{"max_ratio": 0.0}, {"max_ratio": 0.001}])
def test_a_front_of_a_network_that_may_lose_nothing_is_refused(search: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="search: The limits keep every filter"):
        survey(front(**search))


def test_one_point_is_enough_for_a_front(tmp_path: Path) -> None:
    asked = front(min_ratio=0.5, max_ratio=0.5)
    on = survey(asked)
    spec = settled(asked, on)
    (share,) = spec.controls.macs_reduction
    assert on.filters.reachable == (share, share)
    assert Bench(tmp_path).drive(spec, SeededBackend(), on=on).over


def test_controls_stay_where_they_always_were_where_they_can() -> None:
    spec = front()
    assert settled(spec, surveyed()) is spec
    assert labels(spec) == ["macs-25%", "macs-50%", "macs-75%"]
    assert "macs_reduction" not in spec.content["controls"]


def test_a_person_may_say_where_they_sit() -> None:
    spec = parse_spec({**front().model_dump(), "controls": {"macs_reduction": [0.3, 0.9]}})
    assert settled(spec, surveyed()) is spec
    assert labels(spec) == ["macs-30%", "macs-90%"]
    given = of_role(Play.of(spec, on=survey(spec)).through(), Role.CONTROL)
    assert {w.place.target for w in given if w.place.target} == {"macs-30%", "macs-90%"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"controls": {"macs_reduction": [0.99]}}, "controls.macs_reduction: The target removes"),
        ({"controls": {"macs_reduction": [0.5, 0.5]}}, "names the same share twice"),
        (
            {"controls": {"macs_reduction": [0.5]}, "targets": {"macs_reduction": [0.3]}},
            "controls.macs_reduction is for a front",
        ),
    ],
)
def test_controls_that_cannot_be_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        survey(parse_spec({**front().model_dump(), **fields}))


def test_what_was_settled_is_no_change_when_the_file_is_run_again() -> None:
    asked = front(**MOST["60 %"][0])
    stored = settled(asked, survey(asked))
    assert stored.controls.macs_reduction == (0.25, 0.5)
    assert forbidden_changes(stored, asked) == []
    assert as_begun(asked, stored) == stored
    other = asked.controls.model_copy(update={"macs_reduction": (0.3,)})
    assert forbidden_changes(stored, asked.model_copy(update={"controls": other}))
