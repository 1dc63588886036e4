"""A password in an address is nowhere but where it is used: not shown, stored, logged or passed on.

A real sweep runs with a PostgreSQL server that wants one, for the ledger and for MLflow; then
everything it said and left is searched for it.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from orchestrator.specification.settings import TrackingSettings, secret_variables
from tests.orchestrator.command_line import TRIES, call, ended, finish, started, write_spec
from tests.tracking.postgres import PASSWORD, PostgresServer
from tracking import redact_text

WRONG = "nearly-4712"
VARIABLE = "SECRETS_TEST_PASSWORD"
EMPTY = {"name": "image_folder", "path": "."}  # which a rehearsal does not get past


@dataclass
class Watch:
    """Looks at the processes a command starts, for as long as it runs."""

    root: int
    command_lines: set[str] = field(default_factory=set)
    environments: dict[str, str] = field(default_factory=dict)  #: Command line -> environment.
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            for pid in self._family():
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                    self.command_lines.add(line)
                    self.environments[line] = Path(f"/proc/{pid}/environ").read_text()

    def _family(self) -> list[int]:
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with suppress(OSError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    parents[int(entry)] = int(fields[1])
        found = [self.root]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


@dataclass(frozen=True)
class Aftermath:
    """All that a few commands said and left behind."""

    said: str
    folder: Path
    ray: Path
    watch: Watch
    server: PostgresServer


@pytest.fixture(scope="module")
def aftermath(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("secrets")
    ray = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # its sockets need a short path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, PASSWORD)
        patch.setenv("RAY_TMPDIR", str(ray))
        patch.chdir(folder)
        tracking = {}
        for store in ("ledger", "mlflow"):
            postgres.execute(f"CREATE DATABASE secret_{store}")
            tracking[store] = postgres.url(f"secret_{store}", f"${{{VARIABLE}}}")
        spec = write_spec(folder, tracking=tracking)
        where = ("--ledger", tracking["ledger"])
        said = []
        for _ in range(TRIES):  # Ray gives up on a machine that is too busy
            with started(folder, "run", spec) as process, Watch(process.pid) as watch:
                code, out, err = finish(process)
            if code == 0:
                break
        assert code == 0, err
        said += [out, err]
        for arguments in (
            ("run", spec, "--dry-run"),
            ("doctor", spec, f"data={EMPTY}"),
            ("status", "tiny", *where),
            ("status", "tiny", "--json", *where),
            ("compare", "tiny", "--format", "json", *where),
            ("db", "current", where[1]),
            ("publish", "tiny", *where),
        ):
            result = call(*arguments)
            said += [result.stdout, result.stderr]
        yield Aftermath("\n".join(said), folder, ray, watch, postgres)
    shutil.rmtree(ray, ignore_errors=True)


def files_with(secret: str, folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own habits
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc")
class TestASweepWithAPassword:
    def test_no_command_says_it(self, aftermath: Aftermath) -> None:
        assert "tiny" in aftermath.said
        assert PASSWORD not in aftermath.said

    def test_no_file_holds_it(self, aftermath: Aftermath) -> None:
        written = [path.name for path in aftermath.folder.rglob("*")]
        assert {"publisher.log", "report.html", "spec.json"} <= set(written)
        assert files_with(PASSWORD, aftermath.folder) == []

    def test_no_log_of_ray_holds_it(self, aftermath: Aftermath) -> None:
        assert list(aftermath.ray.rglob("raylet.out"))
        assert files_with(PASSWORD, aftermath.ray) == []

    @pytest.mark.parametrize("database", ["ledger", "mlflow"])
    def test_no_record_holds_it(self, aftermath: Aftermath, database: str) -> None:
        dsn = aftermath.server.url(f"secret_{database}").replace("+psycopg", "")
        with psycopg.connect(dsn) as connection:
            tables = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            ).fetchall()
            texts = [
                str(row)
                for (table,) in tables
                for row in connection.execute(f'SELECT t::text FROM "{table}" t'.encode())
            ]
        assert any("tiny" in text for text in texts)
        assert any(f"${{{VARIABLE}}}" in text for text in texts) or database == "mlflow"
        assert [text for text in texts if PASSWORD in text] == []

    def test_no_command_line_shows_it(self, aftermath: Aftermath) -> None:
        lines = aftermath.watch.command_lines
        assert any("tracking.mlflow_mirror.publisher_process" in line for line in lines)
        assert [line for line in lines if PASSWORD in line] == []

    def test_workers_do_not_get_it(self, aftermath: Aftermath) -> None:
        held = aftermath.watch.environments
        assert any("ray::" in line for line in held)
        assert any("raylet" in line for line in held)
        theirs = ("orchestrator run", "tracking.mlflow_mirror.publisher_process")
        assert [
            line
            for line, environment in held.items()
            if PASSWORD in environment and not any(name in line for name in theirs)
        ] == []


@pytest.mark.integration
class TestAConnectionThatFails:
    @pytest.mark.parametrize("debug", [(), ("--debug",)])
    def test_the_password_is_in_no_message(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...]
    ) -> None:
        monkeypatch.setenv(VARIABLE, WRONG)
        for host in ("127.0.0.1:1", "no-such-host.invalid"):
            address = f"postgresql+psycopg://ledger:${{{VARIABLE}}}@{host}/x"
            code, out, err = ended(tmp_path, *debug, "status", "--ledger", address)
            assert code == (1 if debug else 2)
            assert "***" in err
            assert WRONG not in out + err

    def test_a_wrong_password_is_in_no_message(
        self, tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, WRONG)
        address = postgres.url("postgres", f"${{{VARIABLE}}}")
        code, out, err = ended(tmp_path, "status", "--ledger", address)
        assert (code, "authentication failed" in err) == (2, True)
        assert WRONG not in out + err


class TestNames:
    def test_variables_with_passwords_are_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WHOLE", "postgresql+psycopg://me:hush@db/x")
        monkeypatch.setenv("HOST", "db.example")
        tracking = TrackingSettings(
            store="${HOME}/x",
            ledger="${WHOLE}",
            mlflow="https://me:${PART}@${HOST}/",
            artifacts="s3://bucket/?secret_key=${KEY}",
        )
        assert secret_variables(tracking) == {"WHOLE", "PART", "KEY"}

    def test_passwords_are_taken_out_of_a_text(self) -> None:
        text = "at postgresql://me:hush@db/x, then 'https://a:b@c/?token=hush' and http://plain/"
        shown = "at postgresql://me:***@db/x, then 'https://a:***@c/?token=***' and http://plain/"
        assert redact_text(text) == shown
