"""A network as one file that other programs run: ONNX, or an exported program of torch.

Every file is run before it is handed out: at two batch sizes, with random images, its logits must
be those of the network it was made from.
"""

import importlib
import io
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from workers.errors import WorkerError

Form = Literal["onnx", "torch_export"]
FILES: Final[Mapping[Form, str]] = {"onnx": "network.onnx", "torch_export": "network.pt2"}
BATCHES: Final = (1, 7)  #: Images at a time that a file is tried on.
TOLERANCE: Final = 1e-4  #: Of logits, beside the largest of them.
_NEEDS: Final = ("onnx", "onnxruntime", "onnxscript")


class PackagesMissingError(WorkerError, ImportError):
    """A file is wanted whose packages are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        return (
            f"An ONNX file is written and checked with {', '.join(_NEEDS)}; not installed: "
            f"{', '.join(self.names)}. Install them: pip install 'prunesweep[onnx]'"
        )


class ExchangeError(WorkerError, RuntimeError):
    """A network cannot be written in this form, or the file gives other logits."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(file, problem)
        self.file, self.problem = file, problem

    def __str__(self) -> str:
        return f"No {self.file} was written: {self.problem}"


def require_packages(forms: Collection[Form]) -> None:
    """See that what these forms need is installed.

    Raises:
        PackagesMissingError: Something is not.
    """
    missing = tuple(name for name in _NEEDS if find_spec(name) is None)
    if "onnx" in forms and missing:
        raise PackagesMissingError(missing)


def file_of(
    form: Form, network: nn.Module, shape: tuple[int, int, int], facts: Mapping[str, str]
) -> bytes:
    """Return a network as a file, which has been run.

    Args:
        form: Which kind of file.
        network: On the CPU, in evaluation mode.
        shape: Of one image, ``(C, H, W)``; the number of images is left open.
        facts: What to write into the file beside the network, where the form has a place for it.

    Raises:
        PackagesMissingError: What it takes is not installed.
        ExchangeError: The network cannot be written so, or the file gives other logits.
    """
    require_packages([form])
    write = {"onnx": _onnx, "torch_export": _torch_export}[form]
    try:
        with _quiet():
            content, run = write(network, shape, facts)
    except Exception as error:  # whatever a tracer meets in code it does not know
        told = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise ExchangeError(FILES[form], f"the network cannot be traced ({told[:300]})") from error
    _check(form, network, run, shape)
    return content


def _check(
    form: Form,
    network: nn.Module,
    run: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    for count in BATCHES:
        images = torch.randn(count, *shape, generator=generator)
        with torch.no_grad(), _quiet():
            expected = network(images)
            try:
                found = run(images)
            except Exception as error:
                problem = f"the file does not run on {count} image(s): {error}"
                raise ExchangeError(FILES[form], problem) from error
        away = float((found - expected).abs().max())
        if not away <= TOLERANCE * max(1.0, float(expected.abs().max())):
            problem = f"on {count} image(s) its logits are {away:.3g} from the network's"
            raise ExchangeError(FILES[form], problem)


def _program(network: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    images = torch.zeros(2, *shape)
    return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def _torch_export(
    network: nn.Module, shape: tuple[int, int, int], facts: Mapping[str, str]
) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    buffer = io.BytesIO()
    torch.export.save(_program(network, shape), buffer, extra_files={**_as_files(facts)})
    content = buffer.getvalue()
    loaded: Any = torch.export.load(io.BytesIO(content)).module()
    return content, loaded


def _as_files(facts: Mapping[str, str]) -> dict[str, Any]:
    return {f"{name}.txt": text for name, text in facts.items()}


def _onnx(
    network: nn.Module, shape: tuple[int, int, int], facts: Mapping[str, str]
) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    onnx: Any = importlib.import_module("onnx")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    exported: Any = torch.onnx.export(_program(network, shape), dynamo=True, verbose=False, **names)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        exported.save(file, external_data=False)
        model = onnx.load(file)
    onnx.helper.set_model_props(model, {**facts})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return content, run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of the tracers, which are about themselves, from standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
