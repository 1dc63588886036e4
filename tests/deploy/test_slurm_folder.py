"""Where Ray's sockets are in a Slurm job: a folder that nobody knew before, and nobody enters."""

import os
import re
import subprocess
from pathlib import Path

from tests.deploy.files import DEPLOY, PROGRAMS
from tests.orchestrator.ray_cluster import free_ports

SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
if [ "$1" = hostname ]; then echo 127.0.0.1; exit; fi
exec "$@"
"""
#: Listens where a head would, and says what it was given.
RAY = """#!/usr/bin/env python
import os, pathlib, re, socket, sys, time
given = dict(re.findall(r"--([a-z-]+)=(\\S+)", " ".join(sys.argv)))
mode = os.stat(os.path.dirname(given["temp-dir"])).st_mode & 0o777
pathlib.Path("told").open("a").write(f"{given['temp-dir']} {mode:o}\\n")
listens = socket.create_server(("127.0.0.1", int(given["port"])))
time.sleep(600)
"""


def test_it_is_new_and_private_and_goes_with_the_job(tmp_path: Path) -> None:
    programs = {"srun": SRUN, "scontrol": "#!/bin/sh\necho node1\n", "ray": RAY}
    for name, text in {**programs, "prunesweep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (port,) = free_ports(1)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{PROGRAMS}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(port % 10000),
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }
    for _ in range(2):  # the same job, queued again
        command = [str(DEPLOY / "slurm.sh"), "sweep.yaml"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    told = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    assert [mode for _, mode in told] == ["700", "700"]
    folders = {folder for folder, _ in told}
    assert len(folders) == 2
    assert all(re.fullmatch(r"/tmp/ray-\w{8}/ray", folder) for folder in folders)
    assert not any(os.path.exists(os.path.dirname(folder)) for folder in folders)
