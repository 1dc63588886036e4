"""What workers write is what tracking reads, field for field, and older results are read too."""

import types
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import pytest

from methods.structure import latency_predictor
from tracking.errors import IncompleteResultError
from tracking.places import Role
from tracking.results import (
    Environment,
    Judged,
    PredictorReport,
    Result,
    Timing,
    finite,
    given,
)
from workers import results
from workers.node.environment import describe_environment
from workers.node.node import resolve_device

WRITTEN: Final = (
    results.TrialResult,
    results.ProxyResult,
    results.LatencyResult,
    results.PredictorResult,
)

PARTS: Final = (results.ShapeResult, results.ResultOnTest)

#: What a list, a mapping or a record of JSON is read as.
READ_AS: Final = {
    list[int]: tuple[int, int, int],
    list[float]: tuple[float, ...],
    list[str]: tuple[str, ...],
    list[list[int]]: tuple[tuple[int, int, int], ...],
    dict[str, int]: Mapping[str, int],
    dict[str, float]: Mapping[str, float],
    dict[str, str]: Mapping[str, str],
    list[results.LatencyRecord]: tuple[Timing, ...],
}
RECORDS: Final = {
    "environment": Environment,
    "plan": Mapping[str, Any],
    "predictor_report": PredictorReport,
}


def without_none(kind: Any) -> Any:
    if get_origin(kind) in {Union, types.UnionType}:
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
    return kind


def hints(kind: type) -> dict[str, Any]:
    """Fields and their types, those of a record's parts among them, as they are stored."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        part = without_none(hint)
        found |= hints(part) if part in PARTS else {name: part}
    return found


def test_every_field_that_is_written_is_read_as_its_type_and_no_other() -> None:
    written = {name: hint for kind in WRITTEN for name, hint in hints(kind).items()}
    expected = {
        name: RECORDS.get(name) or READ_AS.get(hint, hint) for name, hint in written.items()
    }
    assert hints(Result) == expected


@pytest.mark.parametrize("kind", WRITTEN)
def test_kinds_do_not_disagree_on_a_field(kind: type) -> None:
    for name, hint in hints(kind).items():
        assert all(hints(other).get(name, hint) == hint for other in WRITTEN)


def test_a_timing_is_read_field_for_field() -> None:
    assert hints(Timing) == hints(results.LatencyRecord)


@pytest.mark.parametrize(
    ("read", "written"),
    [
        (Judged, latency_predictor.HeldOut),
        (PredictorReport, latency_predictor.PredictorReport),
    ],
)
def test_a_predictors_report_is_read_field_for_field(read: type, written: type) -> None:
    assert [f.name for f in fields(read)] == [f.name for f in fields(written)]


def test_an_environment_is_read_by_the_names_it_is_written_with() -> None:
    written = describe_environment(resolve_device("cpu"))
    read = Result.read({"environment": written}).environment
    assert read is not None
    assert read.stored == written
    assert {f.name for f in fields(Environment)} - {"stored"} <= written.keys()
    assert (read.device_name, read.commit) == (written["device_name"], written["commit"])


@pytest.mark.parametrize("role", Role)
def test_what_a_role_is_there_for_is_a_field(role: Role) -> None:
    assert role.result_field in {f.name for f in fields(Result)}


@pytest.mark.parametrize("stored", [None, {}, {"a_field_of_tomorrow": 1}, {"macs": None}])
def test_what_is_not_there_has_no_field(stored: dict[str, Any] | None) -> None:
    assert set(asdict(Result.read(stored)).values()) == {None}


def test_a_timing_of_before_devices_were_named_is_read() -> None:
    old = {"median_ms": 1.0, "p90_ms": 1.0, "base_median_ms": 2.0, "base_p90_ms": 2.0}
    (timing,) = given(Result.read({"latency": [{"batch_size": 1, **old}]}).latency)
    assert (timing.median_ms, timing.device_name) == (1.0, None)
    assert timing.numbers() == old


def test_reductions_are_counted_anew_from_the_sizes() -> None:
    found = Result.read({"macs": 25, "base_macs": 100, "macs_reduction": 0.5, "params": 3})
    assert (found.reduction("macs"), found.reduction("params")) == (0.75, None)


def test_a_number_that_is_not_finite_is_none() -> None:
    assert [finite(x) for x in (1, float("nan"), float("-inf"), None)] == [1.0, None, None, None]


def test_a_result_that_lacks_what_its_kind_has_is_an_error() -> None:
    with pytest.raises(IncompleteResultError, match="another version"):
        given(Result.read({}).val_accuracy)


def test_a_result_is_stored_flat_and_without_a_test_that_was_not_taken() -> None:
    shape = results.ShapeResult(
        **dict.fromkeys([f.name for f in fields(results.ShapeResult)], None)  # type: ignore[arg-type]
    )
    others = [f.name for f in fields(results.TrialResult) if f.name not in {"shape", "test"}]
    on_test = results.ResultOnTest(
        test_accuracy=90.0, test_loss=0.1, test_images=8, test_chance=10.0, test_correct="ff"
    )
    searched = results.TrialResult(shape=shape, test=None, **dict.fromkeys(others, 1))  # type: ignore[arg-type]
    tested = results.TrialResult(shape=shape, test=on_test, **dict.fromkeys(others, 1))  # type: ignore[arg-type]
    names = {*(f.name for f in fields(shape)), *others}
    assert searched.to_json().keys() == names
    assert tested.to_json() == searched.to_json() | asdict(on_test)
