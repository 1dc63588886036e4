"""What comes from outside is data: it is not run, and it stays where it belongs."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.orchestrator.command_line import call, write_spec


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("name", "says"),
    [("network.pt", "reading it would run code"), ("network.safetensors", "cannot be read")],
)
def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, name: str, says: str
) -> None:
    checkpoint, trace = tmp_path / name, tmp_path / "executed"
    torch.save({"state_dict": Payload(trace)}, checkpoint)
    spec = write_spec(tmp_path, checkpoint=str(checkpoint))
    result = call("run", spec, "--dry-run", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert str(checkpoint) in result.stderr
    assert says in " ".join(result.stderr.split())
    assert not trace.exists()
    torch.load(BytesIO(checkpoint.read_bytes()), weights_only=False)
    assert trace.exists()  # where it is let, the payload works


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", "C:x", "a\\b", ".hidden", "nul\0"])
def test_a_name_that_leads_out_of_the_store_is_refused(tmp_path: Path, name: str) -> None:
    for changes in ({"name": name}, {"arms": [{"method": "l1", "name": name}]}):
        result = call("run", write_spec(tmp_path, **changes), "--dry-run")
        assert result.exit_code == 2
        assert "name" in result.stderr


def test_a_password_written_into_a_specification_is_refused_unsaid(tmp_path: Path) -> None:
    ledger = "postgresql+psycopg://me:hush@db/x"
    result = call("run", write_spec(tmp_path, tracking={"ledger": ledger}), "--dry-run")
    assert result.exit_code == 2
    assert "has a password in it" in result.stderr
    assert "hush" not in result.stderr
