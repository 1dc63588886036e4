"""The specification: what it means, what names it, what may change, and what its page says."""

import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from methods import CostTarget
from orchestrator.commands.exits import exit_code
from orchestrator.errors import Problem, SpecChangeError, SpecError
from orchestrator.specification import addresses
from orchestrator.specification.changes import differences, forbidden_changes
from orchestrator.specification.loading import SpecFile, load_spec, parse_spec
from orchestrator.specification.messages import record_in
from orchestrator.specification.settings import CHECK, TrackingSettings
from orchestrator.specification.spec import SweepSpec
from tests.checkout import ROOT

PAGE = ROOT / "docs" / "specification.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def make(**changes: Any) -> SweepSpec:
    """A small specification in which ``changes`` differ."""
    content = {
        "name": "x",
        "model": "digits_net",
        "arms": ["l1", {"method": "geometric_median", "schedule": "iterative"}],
        "targets": {"macs_reduction": 0.5},
    }
    return SweepSpec.model_validate({**content, **changes})


class TestShorthands:
    def test_a_name_stands_for_a_record(self) -> None:
        spec = make(data="digits")
        assert (spec.model.name, spec.data.name) == ("digits_net", "digits")
        assert spec.arms[0].method == "l1"
        assert spec.arms[1].schedule == {"name": "iterative"}

    def test_an_arm_is_named_by_method_and_schedule(self) -> None:
        arms = ["l1", {"method": "l1", "schedule": "iterative"}, {"method": "l1", "name": "mine"}]
        assert [arm.name for arm in make(arms=arms).arms] == ["l1", "l1-iterative", "mine"]

    def test_one_reduction_stands_for_a_list(self) -> None:
        spec = make(targets={"macs_reduction": 0.5, "params_reduction": [0.3, 0.6]})
        assert spec.cost_targets == (
            CostTarget(axis="macs", reduction=0.5),
            CostTarget(axis="params", reduction=0.3),
            CostTarget(axis="params", reduction=0.6),
        )

    def test_without_targets_the_front_is_searched(self) -> None:
        assert make(targets=None).cost_targets == ()

    def test_the_baseline_is_the_recipe_with_changes(self) -> None:
        spec = make(recipe={"epochs": 3, "momentum": 0.8}, baseline={"epochs": 30})
        assert (spec.baseline_recipe.epochs, spec.baseline_recipe.momentum) == (30, 0.8)


class TestIdentity:
    def test_what_is_stored_is_read_back_equal(self) -> None:
        spec = make(baseline={"milestones": (0.2,)}, search={"limits": {"a*": (0, 0.5)}})
        again = SweepSpec.model_validate(json.loads(spec.model_dump_json()))
        assert again.spec_hash == spec.spec_hash
        assert differences(spec, again) == []

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "y"},
            {"resources": {"workers": 7}},
            {"tracking": {"store": "elsewhere"}},
            {"data": {"name": "digits", "path": "/elsewhere", "download": True}},
        ],
    )
    def test_surroundings_leave_the_hash_as_it_is(self, change: dict[str, Any]) -> None:
        assert make(**change).spec_hash == make().spec_hash

    @pytest.mark.parametrize(
        "change",
        [
            {"arms": ["l1"]},
            {"targets": None},
            {"recipe": {"epochs": 11}},
            {"baseline": {"epochs": 11}},
            {"seeds": [1, 2]},
            {"checkpoint": "a.pt"},
            {"controls": {"random": False}},
            {"data": {"name": "digits", "split_seed": 1}},
        ],
    )
    def test_everything_else_changes_the_hash(self, change: dict[str, Any]) -> None:
        assert make(**change).spec_hash != make().spec_hash

    def test_a_checkpoint_may_move_to_another_folder(self) -> None:
        assert make(checkpoint="/a/w.pt").spec_hash == make(checkpoint="b/w.pt").spec_hash

    def test_reading_a_stored_specification_asks_nothing_of_the_machine(self) -> None:
        spec = make(arms=["of_another_time"], checkpoint="gone.pt", tracking={"mlflow": "${GONE}"})
        assert spec.arms[0].method == "of_another_time"


class TestChanges:
    def test_a_difference_is_one_line_per_field(self) -> None:
        arms = [
            "l1",
            {"method": "geometric_median", "schedule": {"name": "iterative", "rounds": 5}},
        ]
        new = make(recipe={"epochs": 8}, arms=[*arms, "l2"])
        assert differences(make(), new) == [
            "arms.geometric_median-iterative.schedule.rounds: not set -> 5",
            'arms.l2: not set -> {"method": "l2", "settings": {}, '
            '"schedule": {"name": "one_shot"}, "allocation": "search"}',
            "recipe.epochs: 10 -> 8",
        ]

    def test_the_order_of_arms_is_no_difference_but_their_name_is(self) -> None:
        assert differences(make(arms=["l1", "l2"]), make(arms=["l2", "l1"])) == []
        renamed = make(arms=[{"method": "l1", "name": "mine"}])
        assert [line.split(":")[0] for line in differences(make(arms=["l1"]), renamed)] == [
            "arms.l1",
            "arms.mine",
        ]

    def test_a_resumed_sweep_takes_new_resources_and_tracking_only(self) -> None:
        new = make(resources={"workers": 9}, tracking={"mlflow": "off"})
        assert forbidden_changes(make(), new) == []
        assert forbidden_changes(make(), make(search={"trials": 20})) == ["search.trials: 16 -> 20"]

    def test_an_extended_sweep_takes_more_trials_and_appended_seeds(self) -> None:
        new = make(search={"trials": 20}, seeds=[1, 2, 3, 9])
        assert forbidden_changes(make(), new, extend=True) == []

    def test_an_extended_sweep_keeps_what_it_has(self) -> None:
        new = make(search={"trials": 8}, seeds=[2, 1, 3, 9], recipe={"epochs": 3})
        assert forbidden_changes(make(), new, extend=True) == [
            "search.trials: 16 -> 8",
            "recipe.epochs: 10 -> 3",
            "seeds: [1, 2, 3] -> [2, 1, 3, 9]",
        ]

    def test_the_error_shows_the_differences_and_ends_with_2(self) -> None:
        error = SpecChangeError("x", ["recipe.epochs: 4 -> 8"])
        assert exit_code(error) == 2
        assert "already used by a sweep" in str(error)
        assert "\n  recipe.epochs: 4 -> 8\n" in str(error)


class TestTracking:
    def test_everything_lies_in_the_store_by_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        tracking = TrackingSettings(store="records")
        assert tracking.folder == tmp_path / "records"
        assert tracking.ledger_url == f"sqlite:///{tmp_path}/records/ledger.db"
        assert tracking.mlflow_url == f"sqlite:///{tmp_path}/records/mlflow.db"
        assert tracking.artifacts_url == f"{tmp_path}/records/artifacts"
        assert list(tmp_path.iterdir()) == []

    def test_a_password_is_read_when_used_and_never_stored(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LEDGER_PASSWORD", "hunter2")
        spec = make(tracking={"ledger": "postgresql+psycopg://me:${LEDGER_PASSWORD}@db/sweeps"})
        assert spec.tracking.ledger_url == "postgresql+psycopg://me:hunter2@db/sweeps"
        assert "hunter2" not in spec.model_dump_json() + repr(spec)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:hunter2@db/x",
            "postgresql://me:hun#ter2/x@db/x",
            "postgresql://db/x?user=me&password=hunter2",
            "https://me:hunter2@mlflow.example",
        ],
    )
    def test_a_password_in_the_text_is_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(ValidationError, match="has a password in it") as caught:
            make(tracking={"mlflow": url})
        assert "hun" not in str(caught.value)

    def test_off_means_no_mirror(self) -> None:
        assert TrackingSettings(mlflow="off").mlflow_url is None

    def test_off_may_come_from_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MIRROR", "off")
        found = TrackingSettings.model_validate({"mlflow": "${MIRROR}"}, context=CHECK)
        assert found.mlflow_url is None

    def test_paths_with_colons_are_no_passwords(self) -> None:
        assert TrackingSettings(ledger="sqlite:////data/a.db", artifacts="s3://bucket/a:b")


class TestLoading:
    @pytest.fixture
    def quickstart(self) -> Path:
        return ROOT / "examples" / "quickstart.yaml"

    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
    def test_examples_are_good(self, path: Path, tmp_path: Path) -> None:
        users = tmp_path / "file"  # stands for what the user has to bring
        users.touch()
        text = path.read_text()
        brought = [f"checkpoint={users}"] if "checkpoint: data/" in text else []
        brought += [f"data.path={users}"] if "path: data/" in text else []
        assert load_spec(path, brought).arms

    def test_overrides_reach_into_lists_and_shorthands(self, quickstart: Path) -> None:
        spec = load_spec(
            quickstart,
            [
                "arms.0.method=l2",
                "arms.1.schedule.name=iterative",
                "arms.1.schedule.rounds=2",
                "model.arguments={}",
                "targets.macs_reduction=[0.3]",
                "recipe.learning_rate=1e-3",
                "recipe.epochs=3",
                "recipe.epochs=5",
            ],
        )
        names = [arm.name for arm in spec.arms]
        assert names == ["l2", "geometric_median-iterative", "taylor-iterative"]
        assert spec.arms[1].schedule == {"name": "iterative", "rounds": 2}
        assert [(target.axis, target.reduction) for target in spec.cost_targets] == [("macs", 0.3)]
        assert (spec.recipe.learning_rate, spec.recipe.epochs) == (0.001, 5)

    def test_an_override_creates_sections_that_are_left_out(self, quickstart: Path) -> None:
        assert load_spec(quickstart, ["controls.random=false"]).controls.random is False

    def test_an_equals_sign_may_stand_in_a_value(self, quickstart: Path) -> None:
        spec = load_spec(quickstart, ["tracking.mlflow=http://host/?a=b"])
        assert spec.tracking.mlflow == "http://host/?a=b"

    def test_paths_become_absolute(
        self, quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "w.pt").touch()
        (tmp_path / "photos").mkdir()
        data = "data={name: image_folder, path: photos}"
        spec = load_spec(quickstart, ["checkpoint=w.pt", data])
        assert spec.checkpoint == str(tmp_path / "w.pt")
        assert spec.data.path == str(tmp_path / "photos")

    def test_python_objects_are_checked_as_files_are(self) -> None:
        assert parse_spec(make()) == make()
        with pytest.raises(SpecError) as caught:
            parse_spec({"name": "x", "model": "digits_net", "arms": ["l3"], "seeds": [1.5, 2]})
        places = [problem.place for problem in caught.value.problems]
        assert places == ["arms.0.method", "seeds.0"]

    def test_problems_found_later_are_placed_in_the_file(self, quickstart: Path) -> None:
        late = SpecError(
            [Problem("search.limits", "a"), Problem("arms.1", "b"), Problem("data", "c")]
        )
        found = SpecFile.read(quickstart, ["data=digits"]).located(late)
        lines = quickstart.read_text().splitlines()
        search = 1 + next(i for i, line in enumerate(lines) if line.startswith("search:"))
        arm = 1 + next(i for i, line in enumerate(lines) if "- geometric_median" in line)
        assert str(found) == (
            f"{quickstart}:{search}: search.limits: a\n{quickstart}:{arm}: arms.1: b\n"
            "override data: c"
        )

    def test_yaml_reads_numbers_and_words_as_people_do(self, tmp_path: Path) -> None:
        path = tmp_path / "sweep.yaml"
        path.write_text(
            "name: x\nmodel: {name: 'my.code:Net', arguments: {a: 1e-3, b: no, c: null, d: 012}}\n"
            "arms: [l1]\n"
        )
        arguments = load_spec(path).model.arguments
        assert arguments == {"a": 0.001, "b": "no", "c": None, "d": 12}

    def test_errors_survive_the_trip_from_another_process(self) -> None:
        error = SpecError([Problem("sweep.yaml:1: name", "is required")])
        assert str(pickle.loads(pickle.dumps(error))) == "sweep.yaml:1: name: is required"
        change = SpecChangeError("x", ["a: 1 -> 2"])
        assert str(pickle.loads(pickle.dumps(change))) == str(change)


def fields_of(record: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key path and the default in JSON of every field."""
    for name, field in record.model_fields.items():
        inside = record_in(field.annotation)
        if inside is not None:
            yield from fields_of(inside, f"{prefix}{name}{'[]' if name == 'arms' else ''}.")
        elif field.is_required():
            yield prefix + name, "required"
        else:
            yield prefix + name, json.dumps(field.get_default())


class TestPage:
    def test_every_field_is_on_the_page_with_its_default(self) -> None:
        row = r"^\| `([\w.\[\]]+)` \| [^|]+ \| `?([^|]+?)`? \|"
        rows = dict(re.findall(row, PAGE.read_text(), re.MULTILINE))
        assert rows == dict(fields_of(SweepSpec))

    def test_the_page_shows_every_choice(self) -> None:
        choices = re.findall(r"Literal\[([^]]+)\]", "".join(map(str, annotations(SweepSpec))))
        page = PAGE.read_text()
        for choice in {word.strip(" '") for words in choices for word in words.split(",")}:
            assert f"`{choice}`" in page, choice

    def test_its_first_example_is_good(self, tmp_path: Path) -> None:
        example = re.search(r"```yaml\n(.+?)```", PAGE.read_text(), re.S)
        assert example is not None
        (tmp_path / "sweep.yaml").write_text(example[1])
        assert load_spec(tmp_path / "sweep.yaml").name == "digits-quickstart"


def annotations(record: type[BaseModel]) -> Iterator[Any]:
    for field in record.model_fields.values():
        inside = record_in(field.annotation)
        if inside is not None:
            yield from annotations(inside)
        else:
            yield field.annotation


def numbers_of(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every number in a JSON schema, by its path in there."""
    if isinstance(schema, dict):
        if schema.get("type") in {"integer", "number"}:
            yield path, schema
        for key, inside in schema.items():
            yield from numbers_of(inside, f"{path}/{key}")
    elif isinstance(schema, list):
        for place, inside in enumerate(schema):
            yield from numbers_of(inside, f"{path}/{place}")


def test_every_number_has_both_bounds() -> None:
    found = dict(numbers_of(SweepSpec.model_json_schema()))
    assert len(found) > 30
    del found["/$defs/ResourceSettings/properties/gpu_share/anyOf/0"]  # a validator of its own
    for path, schema in found.items():
        assert schema.keys() & {"minimum", "exclusiveMinimum", "gt"}, path
        assert schema.keys() & {"maximum", "exclusiveMaximum", "lt"}, path


def test_a_full_disk_refuses_the_ledger_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(tmp_path)
    full = os.statvfs_result((*found[:3], 0, 0, *found[5:]))
    monkeypatch.setattr("os.statvfs", lambda _: full)
    with pytest.raises(ValueError, match="is on a disk that is full; free 16 MiB at least"):
        addresses.check_database_here(str(tmp_path / "store" / "ledger.db"))
