from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec

SPEC = TrialSpec(
    kind="prune",
    model=ModelSettings(name="digits_net"),
    data=DataSettings(),
    data_hash="0" * 32,
    recipe=Recipe(),
    seed=0,
    method="filter_norm",
)


def test_the_first_revision_of_a_method_or_schedule_is_no_part_of_the_identity() -> None:
    stored = SPEC.model_dump(mode="json")
    assert not {"method_revision", "schedule_revision"} & stored.keys()
    same = SPEC.model_copy(update={"method_revision": 1, "schedule_revision": 1})
    assert same.uid == SPEC.uid


def test_a_later_revision_tells_trials_with_the_same_settings_apart() -> None:
    later = [SPEC.model_copy(update={name: 2}) for name in ("method_revision", "schedule_revision")]
    assert len({SPEC.uid, *(spec.uid for spec in later)}) == 3
    assert all(TrialSpec.model_validate_json(spec.model_dump_json()) == spec for spec in later)
