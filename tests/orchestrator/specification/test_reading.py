"""Reading specifications: once, to a limit, and what is wrong is told in lines one can see."""

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import Problem, SpecError
from orchestrator.specification.loading import SpecFile, load_spec
from tests.orchestrator.specification.test_bad_specs import GOOD


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(path: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    return str(caught.value)


class TestFilesThatCannotBeRead:
    def test_a_missing_file_is_named_with_its_neighbour(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_text(GOOD)
        says = "sweeps.yaml: there is no such file; did you mean 'sweep.yaml'?"
        assert message_of("sweeps.yaml") == says

    def test_a_missing_folder_is_named(self, folder: Path) -> None:
        says = "no/sweep.yaml: there is no such file; the folder 'no' does not exist either"
        assert message_of("no/sweep.yaml") == says

    def test_a_folder_is_not_a_file(self, folder: Path) -> None:
        assert message_of(".") == ".: is a folder; name a specification file"

    def test_text_in_another_encoding_is_refused_with_its_line(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_bytes("name: x\nmodel: café\n".encode("latin-1"))
        assert message_of("sweep.yaml") == "sweep.yaml:2: is not UTF-8 text; save it as UTF-8"

    def test_a_path_through_a_file_cannot_be_read(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_text(GOOD)
        assert message_of("sweep.yaml/x") == "sweep.yaml/x: cannot be read: Not a directory"

    def test_aliases_of_aliases_end_before_memory_does(self, folder: Path) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        (folder / "sweep.yaml").write_text("\n".join(lines))
        assert "is not YAML: more than 10000 values" in message_of("sweep.yaml")

    def test_a_long_text_behind_many_aliases_ends_before_memory_does(self, folder: Path) -> None:
        many = ", ".join(["*a"] * 5000)
        (folder / "sweep.yaml").write_text(f"epochs: [&a '{'x' * 50_000}', {many}]\n")
        assert message_of("sweep.yaml") == (
            "sweep.yaml:1:10: is not YAML: more than 1000000 characters"
        )

    def test_a_device_is_no_specification(self, folder: Path) -> None:
        says = "/dev/zero: cannot be read: it is neither a file nor a pipe"
        assert message_of("/dev/zero") == says

    def test_a_file_larger_than_any_specification_is_not_read(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_bytes(b"#" * 300_000)
        says = "sweep.yaml: has more than 256 KiB; no specification needs as much"
        assert message_of("sweep.yaml") == says

    def test_an_endless_pipe_is_not_read_to_its_end(self, folder: Path) -> None:
        with subprocess.Popen(["yes", "name: x"], stdout=subprocess.PIPE) as endless:
            assert endless.stdout is not None
            says = "has more than 256 KiB; no specification needs as much"
            assert says in message_of(f"/dev/fd/{endless.stdout.fileno()}")
            endless.kill()

    def test_a_pipe_is_read_once_and_later_problems_have_their_lines(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, GOOD.encode())
        os.close(writer)
        file = SpecFile.read(f"/dev/fd/{reader}")
        os.close(reader)
        assert file.spec().name == "digits"
        late = file.located(SpecError([Problem("recipe.epochs", "is late")]))
        assert str(late) == f"/dev/fd/{reader}:12: recipe.epochs: is late"


class TestWhatAMessageShows:
    """However large or strange the input, a mistake is a line that a terminal can show."""

    @pytest.mark.parametrize(
        ("new", "says"),
        [
            (r'"\e[2J\e[31mOK\n": 1', r"sweep.yaml:15: \x1b[2J\x1b[31mOK\n: unknown key"),
            ('"rec\u200bipe": {}', r"sweep.yaml:15: rec\u200bipe: unknown key; did you mean"),
            (r'"\u202Eeman": 1', r"sweep.yaml:15: \u202eeman: unknown key"),
            (r'"\udc80": 1', 'sweep.yaml: is "\\udc80"; must be text without lone surrogates'),
        ],
    )
    def test_what_cannot_be_seen_is_shown_as_an_escape(
        self, new: str, says: str, folder: Path
    ) -> None:
        (folder / "sweep.yaml").write_text(GOOD + new + "\n")
        message = message_of("sweep.yaml")
        assert message.startswith(says)
        assert message.isprintable()

    @pytest.mark.parametrize(
        "new",
        [
            f"{'k' * 50_000}: 1",
            f"layers: {{policy: {'x' * 50_000}}}",
            f"controls: {{dense: [{'[], ' * 3000}]}}",
            f"data2: {{{', '.join(f'{key}: 1' for key in range(3000))}}}",
            f"checkpoint: {'/long' * 10_000}",
            f"layers: {'[' * 40}{']' * 40}",
            f"baseline: {{epochs: {'9' * 399}}}",
            f"tracking: {{store: {'a' * 5000}}}",
        ],
    )
    def test_input_is_never_repeated_at_length(self, new: str, folder: Path) -> None:
        (folder / "sweep.yaml").write_text(GOOD + new + "\n")
        assert len(message_of("sweep.yaml")) < 500

    def test_of_very_many_mistakes_the_first_are_told(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_text(GOOD + "".join(f"k{n}: 1\n" for n in range(3000)))
        lines = message_of("sweep.yaml").split("\n")
        assert len(lines) == 21
        assert lines[-1] == "and 2980 more"
