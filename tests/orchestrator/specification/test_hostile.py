"""Whatever stands in a field: a specification that is good, or lines that say what is wrong.

Small on every run, a thousand cases under ``slow``; a failure prints the seed to repeat it with.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.errors import SpecError
from orchestrator.specification.loading import load_spec
from orchestrator.specification.messages import record_in
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.specification.test_bad_specs import GOOD

SLOWEST_S = 5.0
LONGEST = 20 * 2000  #: Characters of all lines together.


def places(record: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys of every field, sections included."""
    for name, field in record.model_fields.items():
        yield (*prefix, name)
        inside = record_in(field.annotation)
        if inside is not None and name != "arms":
            yield from places(inside, (*prefix, name))


PLACES = sorted(places(SweepSpec))
TEXTS = st.sampled_from(
    [
        *("", " ", "\x1b[2J", "a\nb", "\u202e", "a\0b", "x" * 5000, "${HOME}", "${", "..", "/"),
        *("/dev/zero", "/proc/self", "/dev/null/x", "file:///dev/zero", "s3://", "://", "a://b"),
        *("sqlite://", "sqlite:///.", "sqlite:////dev/zero", "postgresql://h:99999/x", "http://"),
        *("builtins:exit", "..x:y", "json:loads", "torch.nn:Identity", "os:abort()", "l1", "auto"),
        *("1e999", "0x10", ".nan", "127.0.0.1:0", "ray://h:1", "[::1]:70000", "50%", "a?b#c"),
    ]
)
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 10**30, -(10**30), 10**399, 2**63, 0.5, 1e300, -1e300, 1e-300, float("nan")]
) | st.sampled_from([float("inf"), float("-inf"), -0.0])
HOSTILE = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=20) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def changed(at: tuple[str, ...], value: Any) -> str:
    tree = yaml.safe_load(GOOD)
    here = tree
    for key in at[:-1]:
        inside = here.get(key)
        here[key] = inside if isinstance(inside, dict) else {"name": inside} if inside else {}
        here = here[key]
    here[at[-1]] = value
    return yaml.safe_dump(tree, allow_unicode=False)


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("good") / "sweep.yaml"
    path.write_text(GOOD)
    load_spec(path)


class Hostile:
    """The check, whose number of cases each of its tests decides."""

    def check(self, folder: Any, at: tuple[str, ...], value: Any) -> None:
        path = folder / "sweep.yaml"
        path.write_text(changed(at, value))
        began = time.monotonic()
        try:
            load_spec(path)
        except SpecError as error:
            message = str(error)
            assert message.replace("\n", "").isprintable(), ascii(message)
            assert len(message) < LONGEST
            assert message.strip()
        assert time.monotonic() - began < SLOWEST_S
        assert [file.name for file in folder.iterdir()] == ["sweep.yaml"]


CHECKS = settings(
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class TestFields(Hostile):
    @settings(CHECKS, max_examples=60)
    @given(at=st.sampled_from(PLACES), value=HOSTILE)
    def test_some_values(self, tmp_path: Any, at: tuple[str, ...], value: Any) -> None:
        self.check(tmp_path, at, value)

    @pytest.mark.slow
    @settings(CHECKS, max_examples=1000)
    @given(at=st.sampled_from(PLACES), value=HOSTILE)
    def test_a_thousand_values(self, tmp_path: Any, at: tuple[str, ...], value: Any) -> None:
        self.check(tmp_path, at, value)


class TestTexts:
    """Bytes that are no specification at all."""

    @settings(CHECKS, max_examples=100)
    @given(content=st.binary(max_size=300) | st.text(alphabet="{}[]&*!:-#'\" \nab1", max_size=200))
    def test_any_bytes_are_read_or_refused(self, tmp_path: Any, content: bytes | str) -> None:
        path = tmp_path / "sweep.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(SpecError) as caught:
            load_spec(path)
        assert str(caught.value).replace("\n", "").isprintable()
