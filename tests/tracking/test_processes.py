import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from tracking.processes import Process, has_ended, this_process

TOLD = """
from tracking.processes import this_process
p = this_process()
print(p.host, p.pid, p.place, p.birth, flush=True)
input()
"""


@pytest.fixture
def child() -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", TOLD]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def told_by(child: "subprocess.Popen[str]") -> Process:
    assert child.stdout is not None
    host, pid, place, birth = child.stdout.readline().split()
    return Process(host=host, pid=int(pid), place=place, birth=birth)


def test_a_process_lives_until_it_ends(child: "subprocess.Popen[str]") -> None:
    process = told_by(child)
    assert process.pid == child.pid
    assert not has_ended(process)
    child.send_signal(signal.SIGSTOP)
    assert not has_ended(process)  # it may go on at any time
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(process)  # though its parent has not fetched it
    child.communicate()
    assert has_ended(process)


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    assert not has_ended(this_process())
    assert has_ended(replace(this_process(), birth="1"))


def test_of_another_machine_nothing_is_known() -> None:
    far = replace(this_process(), place="another boot", pid=2**22 + 1)
    assert not has_ended(far)


def test_processes_of_other_users_are_seen() -> None:
    assert has_ended(replace(this_process(), pid=1, birth="never"))  # 1 has another birth
