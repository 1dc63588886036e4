"""What travels with a job, and what is refused because it cannot."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.own_code import file_of
from orchestrator.cluster import job_package as package
from orchestrator.cluster.job_package import JobPackage, pack
from orchestrator.cluster.shipping import MODULES, network_code
from orchestrator.errors import SpecError
from prunesweep import PACKAGES
from tests.orchestrator.command_line import write_spec
from workers.models.digits_net import DigitsNet

SERVICES = {
    "ledger": "postgresql+psycopg://prunesweep:${LEDGER_PASSWORD}@postgres/prunesweep",
    "mlflow": "${MLFLOW}",
    "artifacts": "s3://prunesweep",
}
PHOTOS = {"name": "image_folder", "path": "/photos"}


def packed(tmp_path: Path, *overrides: str, **settings: Any) -> tuple[JobPackage, Path]:
    changes = settings.pop("spec", {})
    spec = write_spec(tmp_path, **{"tracking": SERVICES, **changes})
    folder = tmp_path / "folder"
    folder.mkdir()
    return pack(spec, overrides, folder, **settings), folder


def refusal(tmp_path: Path, *overrides: str, **settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        packed(tmp_path, *overrides, **settings)
    return str(caught.value)


def test_a_sweep_on_services_travels_as_its_file(tmp_path: Path) -> None:
    found, folder = packed(tmp_path, "recipe.epochs=2", "search.limits={'conv3': [0, 0.5]}")
    assert found.files == ("sweep.yaml",)
    assert (folder / "sweep.yaml").read_text() == (tmp_path / "sweep.yaml").read_text()
    assert shlex.split(found.entrypoint) == [
        "prunesweep",
        "run",
        "sweep.yaml",
        "recipe.epochs=2",
        "search.limits={'conv3': [0, 0.5]}",
        "--address",
        "auto",
        "--wait",
        "90",
    ]


def test_variables_are_left_to_the_cluster_and_named(tmp_path: Path) -> None:
    found, _ = packed(tmp_path)
    assert found.needs == ("LEDGER_PASSWORD", "MLFLOW")
    assert found.status.startswith('PRUNESWEEP_LEDGER="postgresql+psycopg://prunesweep:${LEDGER')


def test_a_password_in_the_text_is_refused_and_not_shown(tmp_path: Path) -> None:
    override = "tracking.ledger='postgresql://prunesweep:hush-4711@postgres/prunesweep'"
    message = refusal(tmp_path, override)
    assert "has a password in it" in message
    assert "hush-4711" not in message


def test_records_on_this_machine_are_refused_all_at_once(tmp_path: Path) -> None:
    lines = refusal(tmp_path, spec={"tracking": {"mlflow": "sqlite:///runs.db"}}).splitlines()
    places = [line.partition(": ")[2].partition(":")[0] for line in lines]
    assert places == ["tracking.ledger", "tracking.mlflow", "tracking.artifacts"]
    assert all("would not share with this machine" in line for line in lines)
    assert lines[0].startswith(f"{tmp_path}/sweep.yaml:")
    assert "begins with postgresql+psycopg://" in lines[0]


@pytest.mark.parametrize("artifacts", ["artifacts", "/data/artifacts", "file:///a", "memory://a"])
def test_a_folder_for_artifacts_is_refused(tmp_path: Path, artifacts: str) -> None:
    message = refusal(tmp_path, f"tracking.artifacts={artifacts}")
    assert "tracking.artifacts: is a file or folder" in message


def test_paths_are_taken_where_all_nodes_share_them(tmp_path: Path) -> None:
    tracking = {"store": "/shared/prunesweep", "artifacts": "/shared/artifacts"}
    spec = {"tracking": tracking, "data": PHOTOS, "checkpoint": "/shared/dense.pt"}
    found, _ = packed(tmp_path, spec=spec, shared_paths=True)
    assert found.files == ("sweep.yaml",)
    assert found.status == "prunesweep status tiny --store /shared/prunesweep"


def test_relative_paths_are_refused_even_then(tmp_path: Path) -> None:
    spec = {"tracking": {"store": "data"}, "data": {**PHOTOS, "path": "photos"}}
    lines = refusal(tmp_path, spec=spec, shared_paths=True).splitlines()
    assert len(lines) == 4
    assert all("is relative, and a job runs in a folder of its own" in line for line in lines)


def test_images_of_this_machine_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, spec={"data": PHOTOS})
    assert "data.path: '/photos' is a path of this machine" in message


@pytest.mark.parametrize(
    "data",
    [
        {"name": "cifar10", "path": "/tmp/cifar10", "download": True},
        {"name": "image_folder", "path": "s3://photos/set.zip"},
    ],
    ids=["download", "address"],
)
def test_images_that_nodes_fetch_are_not(tmp_path: Path, data: dict[str, Any]) -> None:
    assert packed(tmp_path, spec={"data": data})[0].files == ("sweep.yaml",)


def test_the_checkpoint_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.save(DigitsNet().state_dict(), tmp_path / "weights" / "dense.pt")
    found, folder = packed(tmp_path, spec={"checkpoint": "weights/dense.pt"})
    assert found.files == ("dense.pt", "sweep.yaml")
    sent = (folder / "dense.pt").read_bytes()
    assert sent == (tmp_path / "weights" / "dense.pt").read_bytes()
    assert 'checkpoint="dense.pt"' in shlex.split(found.entrypoint)


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "checkpoint: there is no file 'gone.pt'" in refusal(tmp_path, "checkpoint=gone.pt")


def test_a_large_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_CHECKPOINT", 2**20)
    (tmp_path / "dense.pt").write_bytes(bytes(3 * 2**20))
    message = refusal(tmp_path, f"checkpoint={tmp_path}/dense.pt")
    assert "checkpoint: has 3 MiB, and at most 1 travel with a job" in message


def test_a_checkpoint_behind_a_url_stays_there(tmp_path: Path) -> None:
    found, _ = packed(tmp_path, "checkpoint=s3://weights/dense.pt")
    assert found.files == ("sweep.yaml",)


def test_a_network_of_the_users_own_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("from workers.models.digits_net import DigitsNet as net\n")
    monkeypatch.syspath_prepend(tmp_path)
    found, _ = packed(tmp_path, "model=mine:net")
    assert found.files == ("mine.py", "sweep.yaml")


def test_files_of_the_users_own_travel_with_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "sent_net.py").write_text("from sent_part import DigitsNet as build\n")
    part = "from workers.models.digits_net import DigitsNet\n"
    (tmp_path / "nets" / "sent_part.py").write_text(part)
    method = "from methods.criteria.filter_norm import FilterNorm as Mine\n"
    (tmp_path / "sent_method.py").write_text(method)
    found, folder = packed(
        tmp_path, "model=nets/sent_net.py:build", spec={"arms": ["sent_method.py:Mine"]}
    )
    assert found.files == ("sent_method.py", "sent_net.py", "sent_part.py", "sweep.yaml")
    monkeypatch.chdir(folder)
    assert file_of("nets/sent_net.py:build") == (folder / "sent_net.py").resolve()


def test_a_sweep_that_nothing_would_come_of_is_refused_here(tmp_path: Path) -> None:
    message = refusal(tmp_path, "search.limits={'layer3.*': [0, 0.5]}")
    assert "search.limits: The limits for 'layer3.*' match no prunable group" in message


def test_a_network_that_only_the_nodes_have_is_tried_there(tmp_path: Path) -> None:
    assert packed(tmp_path, "model=gone:net")[0].files == ("sweep.yaml",)


@pytest.mark.parametrize(
    "model", ["digits_net", "torchvision:x", "workers.models:x", "prunesweep:x", "gone:x"]
)
def test_what_the_nodes_have_does_not_travel(tmp_path: Path, model: str) -> None:
    assert network_code(model, tmp_path) == []


def test_prunesweep_travels_when_told_to_and_runs_from_there(tmp_path: Path) -> None:
    found, folder = packed(tmp_path, with_code=True)
    assert set(found.files) == {*PACKAGES, *MODULES, "sweep.yaml"}
    assert found.entrypoint.startswith("python -m orchestrator run sweep.yaml")
    code = "import prunesweep, orchestrator.errors as e; print(prunesweep.__file__, e.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert all(Path(file).is_relative_to(folder) for file in run.stdout.split())
