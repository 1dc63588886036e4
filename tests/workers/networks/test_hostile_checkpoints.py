"""Whatever is given as a checkpoint: weights taken exactly, or a message; no code runs.

Small on every run, a thousand cases under ``slow``; the seed stands above every run's results.
"""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.hostile import CHECKS, Content, damaged, empty, held_to_limits
from workers.networks.checkpoints import adopt, read_weights, with_own_head

CLASSES = 3


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


WEIGHTS = dict(network().state_dict())
SHAPES = {name: value.shape for name, value in WEIGHTS.items()}
NAMES = [*WEIGHTS, "module", "state_dict", "model", "ema", "epoch", "a\nb", "\x1b[2J", "x" * 300]
NAMES += ["n_averaged", "total_ops", "", ".", "module.", "caf\udce9", "\0"]
NESTS = ["state_dict", "model", "net", "weights", "ema", "params", "else", "module", ""]


STRANGE: list[Callable[[Tensor], Any]] = [
    *(Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.long, Tensor.bool),
    *(Tensor.to_sparse, Tensor.numpy, Tensor.tolist, Tensor.flatten, nn.Parameter),
    lambda real: real.double() + 1e-9,
    lambda real: real.to(torch.complex64),
    lambda real: real.to("meta"),
    lambda real: real.to(torch.float8_e4m3fn),
    lambda real: torch.full_like(real, torch.nan),
    lambda real: torch.full_like(real, -torch.inf),
    lambda real: real[None],
    lambda real: real.expand(3, *real.shape),
    lambda real: torch.ones(1).expand(10**6, 10**6, 10**3),
    lambda real: torch.zeros(0),
    lambda real: torch.zeros(()),
    lambda real: torch.zeros(10**6)[: real.numel()].reshape(real.shape),
]


class Harmful:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


PLAIN: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 3, 10**400, 0.5, "text", b"bytes", (), [], {}, set(), Counter(a=3), OrderedDict()]
) | st.sampled_from([torch.Size([3]), torch.float32, torch.device("cuda:9"), complex(1, 2)])


def with_another(name: str, value: Any, keep: bool) -> dict[str, Any]:
    return {**WEIGHTS, name: value} if keep else {name: value}


def with_strange(name: str, kind: Callable[[Tensor], Any], keep: bool) -> dict[str, Any]:
    return with_another(name, kind(WEIGHTS[name].float()), keep)


WEIGHTS_OF_A_KIND = (
    st.just(WEIGHTS)
    | st.builds(
        with_strange, st.sampled_from(list(WEIGHTS)), st.sampled_from(STRANGE), st.booleans()
    )
    | st.builds(with_another, st.sampled_from(NAMES), PLAIN, st.booleans())
    | st.builds(lambda part: {part + k: v for k, v in WEIGHTS.items()}, st.sampled_from(NAMES))
)
CONTENTS: st.SearchStrategy[Any] = st.recursive(
    WEIGHTS_OF_A_KIND | PLAIN,
    lambda inner: (
        st.dictionaries(st.sampled_from(NESTS), inner, max_size=3)
        | st.lists(inner, max_size=2)
        | st.tuples(inner)
    ),
    max_leaves=4,
)


def containing_itself(key: str, others: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"else": others}
    for name in (key, *NESTS):
        content.setdefault(name, content)
    return content


def saved(content: Any, *, old: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not old)
    return out.getvalue()


def packed(pickled: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a pickle in a zip as ``torch.save`` makes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in {
            "data.pkl": pickled,
            "version": b"3\n",
            "byteorder": b"little",
        }.items():
            archive.writestr(f"archive/{name}", content)
    return out.getvalue()


def deflated(content: bytes) -> bytes:
    """Return a zip again, compressed: a file of little that declares much."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return out.getvalue()


def called(module: str, name: str, number: int) -> bytes:
    """Return a pickle that calls something with one number."""
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"\x8a\x08"
        + struct.pack("<q", number)
        + b"\x85R."
    )


def safe(header: Any, behind: int) -> bytes:
    """Return safetensors with any header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(behind)


def tensor_at(start: int, end: int, shape: list[int], dtype: str) -> dict[str, Any]:
    return {"0.weight": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


NUMBERS = st.sampled_from([0, 1, 4, 144, -1, 2**31, 2**63 - 1, 2**64, 10**30])
SAFETENSORS = st.builds(
    safe,
    st.builds(
        tensor_at,
        NUMBERS,
        NUMBERS,
        st.lists(NUMBERS, max_size=4),
        st.sampled_from(["F32", "F64", "I8", "BF16", "C64", "X", ""]),
    )
    | st.sampled_from([{}, [], None, {"__metadata__": {"a": "b"}}, {"__metadata__": 3}, {"a": {}}]),
    st.sampled_from([0, 4, 144, 1000]),
)
CALLS = st.builds(
    called,
    st.sampled_from(["__builtin__", "builtins", "torch", "os", "collections", "torch._utils"]),
    st.sampled_from(["bytearray", "Tensor", "system", "Counter", "set", "exit", "eval", "Size"]),
    st.sampled_from([0, 1, -1, 10**9, 10**12, 2**62]),
)
NO_CHECKPOINTS = [
    *(
        b"",
        b"\0",
        b"hello" * 100,
        b"\x80\x02",
        b"\x80\x04.",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
    ),
    *(b"<!DOCTYPE html><html></html>", b"\n<?xml version='1.0'?>", b"\x80\x02" + b"(" * 10_000),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
    *(
        b"\x89HDF\r\n\x1a\n",
        b"\x1f\x8b" + bytes(50),
        b"\xff" * 8 + b"{}",
        b"\x80\x02]" + b"]" * 9999,
    ),
    *(b"\x80\x02" + b"X\xff\xff\xff\x7f", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f", b"\x80\xff."),
    pickle.dumps({"a": 1}),
    pickle.dumps(WEIGHTS["0.bias"].numpy()),
]
CHANGES = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4)
SAVED = st.builds(saved, CONTENTS, old=st.booleans())
FILES = (
    SAVED
    | st.builds(saved, st.builds(containing_itself, st.sampled_from(NESTS), CONTENTS))
    | st.builds(damaged, SAVED | SAFETENSORS, st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.1]), CHANGES)
    | st.just(safetensors.torch.save(WEIGHTS))
    | SAFETENSORS
    | st.builds(lambda content: deflated(saved(content)), CONTENTS)
    | st.just(deflated(saved({"0.weight": torch.zeros(1 << 26)})))
    | st.builds(packed, CALLS, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    | CALLS
    | st.sampled_from(NO_CHECKPOINTS)
    | st.builds(
        lambda start, rest: start + rest,
        st.sampled_from([b"\x80\x02", b"PK\x03\x04", b""]),
        st.binary(max_size=200),
    )
)


class Checkpoints:
    """The check of a file, whose number of cases each of its tests decides."""

    def check(self, folder: Path, content: bytes) -> None:
        with empty(folder) as own:
            path = own / "some.pth"
            path.write_bytes(content)
            model = network()
            with held_to_limits():
                adopt(model, with_own_head(model, read_weights(path), CLASSES))
            after = model.state_dict()
            assert all(value.isfinite().all() for value in after.values())
            assert {name: value.shape for name, value in after.items()} == SHAPES
            assert [entry.name for entry in own.iterdir()] == ["some.pth"]


class TestCheckpoints(Checkpoints):
    @pytest.mark.timeout(300)
    @settings(CHECKS, max_examples=40)
    @given(content=FILES.map(Content))
    def test_some(self, tmp_path: Path, content: bytes) -> None:
        self.check(tmp_path, content)

    @pytest.mark.slow
    @settings(CHECKS, max_examples=1000)
    @given(content=FILES.map(Content))
    def test_a_thousand(self, tmp_path: Path, content: bytes) -> None:
        self.check(tmp_path, content)

    @settings(CHECKS, max_examples=20)
    @given(wrap=CONTENTS, old=st.booleans(), is_packed=st.booleans())
    def test_code_is_not_run(self, tmp_path: Path, wrap: Any, old: bool, is_packed: bool) -> None:
        trace = tmp_path / "trace"
        content = saved({"else": wrap, "state_dict": Harmful(str(trace))}, old=old)
        self.check(tmp_path, packed(pickle.dumps(Harmful(str(trace)))) if is_packed else content)
        assert not trace.exists()
