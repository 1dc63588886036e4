"""The code that a cluster's nodes may lack: collected here, sent by Ray, never copied by hand."""

import importlib.util
import shutil
from pathlib import Path

from methods.own_code import place_of, sources
from prunesweep import PACKAGES

MODULES = ("prunesweep.py",)

_NO_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")


def own_code(folder: Path) -> list[Path]:
    """Copy prunesweep's packages and modules into ``folder``, and return the copies."""
    root = Path(__file__).resolve().parents[2]
    return [_copy(root / name, folder) for name in (*PACKAGES, *MODULES)]


def network_code(model: str, folder: Path) -> list[Path]:
    """Copy the module a network comes from into ``folder``, and return the copy.

    Empty where there is nothing to send: a network of the zoo, a module that is installed, which
    the nodes must have installed, too, or one that is not on this machine.

    Args:
        model: Name of the network, or of a method; ``mine.py:Name`` or ``package.module:Name`` for
            one of the user's.
        folder: Where to copy to.
    """
    if model.partition(":")[0].endswith(".py"):
        return _copy_sources(model, folder)
    top = model.partition(":")[0].partition(".")[0]
    if ":" not in model or top in PACKAGES or f"{top}.py" in MODULES:
        return []
    place = place_of(top)
    return [] if place is None else [_copy(place, folder)]


def is_on_this_machine(model: str) -> bool:
    """Say whether the code of a network can be found here; the nodes may have what is not."""
    return (
        ":" not in model or importlib.util.find_spec(model.split(".")[0].split(":")[0]) is not None
    )


def _copy_sources(reference: str, folder: Path) -> list[Path]:
    """Copy a file of the user's and what it imports beside it; return what lies at the top."""
    files = sources(reference)
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return [folder / top for top in dict.fromkeys(name.split("/")[0] for name in files)]


def _copy(place: Path, folder: Path) -> Path:
    """Copy a package or a module; ignore files of the checkout it lies in do not count."""
    to = folder / place.name
    if place.is_dir():
        shutil.copytree(place, to, ignore=_NO_CODE)
    else:
        shutil.copyfile(place, to)
    return to
