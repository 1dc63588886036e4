"""``inspect``: what of a network can be pruned, by name, file or specification."""

from pathlib import Path

import pytest

from methods import PruningPlan, count_cost, shrink
from orchestrator.commands.doctor import _policies
from orchestrator.sweep import Sweep
from tests.orchestrator.command_line import call, facts, write_spec
from workers.models import build_model
from workers.networks.shapes import POLICIES, layout_of
from workers.settings import LayerSettings, ModelSettings

OWN = """
from torch import nn

def build(num_classes, in_channels, width=6):
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Conv2d(4, width, 3), nn.BatchNorm2d(width),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, num_classes),
    )
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mynet.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_share_is_what_a_cut_network_no_longer_costs() -> None:
    found = facts("inspect", "digits_net", "--image", "1x8x8")
    under = found["policies"]["inside_blocks"]
    network = build_model(ModelSettings(name="digits_net"), 10, 1)
    assert (found["macs"], found["params"]) == tuple(count_cost(network, (1, 8, 8)))
    layout = layout_of(network, (1, 8, 8), LayerSettings())
    name = under["groups"][0]["name"]
    kept = {group: tuple(range(width)) for group, width in layout.widths.items()}
    kept[name] = kept[name][: layout.widths[name] - int(layout.widths[name] * 0.9)]
    shrink(network, PruningPlan(policy="inside_blocks", widths=layout.widths, kept=kept), layout)
    left = count_cost(network, (1, 8, 8)).macs / found["macs"]
    assert under["groups"][0]["macs_share"] == pytest.approx(1.0 - left)
    assert under["macs_share"] > max(group["macs_share"] for group in under["groups"])


def test_every_policy_is_shown_and_why_one_does_not_fit() -> None:
    found = facts("inspect", "digits_net", "--image", "1x8x8")
    assert list(found["policies"]) == list(POLICIES)
    assert "no residual block" in found["policies"]["scatter"]["refused"]
    assert found["policies"]["inside_blocks"]["left_whole"] == {"conv1": "protected"}


def test_own_code_is_inspected_with_its_arguments_and_layers(own: Path) -> None:
    found = facts(
        "inspect",
        "mynet.py:build",
        "model.arguments.width=16",
        "--image",
        "1x9x9",
        "--classes",
        "3",
    )
    (group,) = found["policies"]["coupled"]["groups"]
    assert (group["filters"], group["producers"], group["follow"]) == (16, ["2"], ["3"])
    assert group["readers"] == ["7"]
    assert [g["name"] for g in found["policies"]["every_layer"]["groups"]] == ["2", "7"]
    assert not (own / "prunesweep-data").exists()


def test_people_see_the_groups_of_the_policy_they_name(own: Path) -> None:
    arguments = ("inspect", "mynet.py:build", "--image", "3x9x9")
    text = call(*arguments, "layers.policy=every_layer").stdout
    assert "Groups under layers.policy = every_layer" in text
    assert "9: its channels leave the network" in text
    assert "9: its channels" not in call(*arguments).stdout


def test_a_specification_says_images_limits_and_who_prunes(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, arms=["l1", "taylor"], search={"max_ratio": 0.5, "trials": 1})
    found = facts("inspect", spec)
    assert (found["image"], found["classes"]) == ([1, 8, 8], 10)
    assert found["policies"]["inside_blocks"]["macs_share"] < 0.75
    looser = facts("inspect", spec, "search.max_ratio=0.9", "targets.macs_reduction=0.9")
    assert looser["policies"]["inside_blocks"]["macs_share"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("digits_nett",), "There is no model 'digits_nett'"),
        (("digits_net", "--image", "8x8"), "--image is '8x8'"),
        (("digits_net", "--image", "1x0x8"), "--image is '1x0x8'"),
        (("digits_net", "layers.polcy=coupled"), "layers.polcy"),
        (("nowhere.yaml",), "nowhere.yaml: there is no such file"),
        (("torchvision/resnet18", "--image", "1x32x32"), "takes images of 3 channels"),
    ],
)
def test_what_cannot_be_inspected_is_refused(arguments: tuple[str, ...], says: str) -> None:
    result = call("inspect", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_network_that_fails_is_one_message(own: Path) -> None:
    (own / "odd.py").write_text(OWN.replace("nn.Linear(width, 8)", "nn.Linear(5, 8)"))
    result = call("inspect", "odd.py:build")
    assert result.exit_code == 2
    assert "model: cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_names_the_policies_under_which_more_can_go(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*arms: str) -> str:
        spec = write_spec(own, model="mynet.py:build", arms=arms, targets={"macs_reduction": 0.1})
        sweep = Sweep.from_file(spec)
        return _policies(sweep.spec, sweep.survey())

    assert looked("l1").startswith("At most 59.8% of the MACs can go under layers.policy = inside")
    assert "every_layer would let 61.4% go" in looked("l1")
    assert "every_layer" not in looked("l1", "taylor")  # which cannot prune linear layers
    monkeypatch.setattr("orchestrator.commands.doctor.CHEAP_S", 0.0)
    assert "inspect SPEC` shows the other policies" in looked("l1")
