"""The public names of prunesweep, each imported when it is used, and its command.

Every room takes the root of all errors from here, so this module imports none of them before that.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods import Filters, PruningMethod, register
    from orchestrator import Sweep, SweepSpec
    from workers import load_pruned

__all__ = [
    "Filters",
    "PrunesweepError",
    "PruningMethod",
    "Sweep",
    "SweepSpec",
    "load_pruned",
    "register",
]

PACKAGES = ("methods", "orchestrator", "search_spaces", "tracking", "workers")
_HOME = {
    "Filters": "methods",
    "PruningMethod": "methods",
    "Sweep": "orchestrator",
    "SweepSpec": "orchestrator",
    "load_pruned": "workers",
    "register": "methods",
}
_RAY_UNPACKS = "py_modules_files"  #: Where a node of a cluster has each package in its own folder.


class PrunesweepError(Exception):
    """Base of every error that prunesweep raises; `docs/errors.md` draws the tree."""


class PackageInTheWayError(PrunesweepError, ImportError):
    """A package of the user's has the name of one of these, and comes before it on the path."""

    def __init__(self, package: str, folder: str) -> None:
        super().__init__(package, folder)
        self.package, self.folder = package, folder

    def __str__(self) -> str:
        return (
            f"{self.folder} is in the way: prunesweep has a package {self.package!r} of its own, "
            "and Python would import this one. Rename it, or take its folder off PYTHONPATH."
        )


def __getattr__(name: str) -> Any:
    """Import a public name from the package it lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_own_packages()
    return getattr(importlib.import_module(_HOME[name]), name)


def require_own_packages() -> None:
    """Check that Python finds this version's packages, those beside this file, and no others.

    Raises:
        PackageInTheWayError: It finds another one under the name of one of them.
    """
    here = Path(__file__).resolve().parent
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None:
            continue  # whoever imports it says so
        place = Path(*(found.submodule_search_locations or [str(found.origin)])[:1]).resolve()
        if place != here / name and _RAY_UNPACKS not in place.parts:
            raise PackageInTheWayError(name, str(place))


def claim_packages() -> None:
    """Import the packages now, before Ray puts the driver's working folder in front of them."""
    require_own_packages()
    for name in PACKAGES:
        importlib.import_module(name)


def main() -> None:
    """Run the command line."""
    _look_last_in_the_working_folder()
    try:
        require_own_packages()
    except PackageInTheWayError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    from orchestrator.program import run_program

    run_program()


def _look_last_in_the_working_folder() -> None:
    """Let networks in the working folder be found, and nothing in it come before what is installed.

    `python -m` puts it first; what PYTHONPATH says stays as it is.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # removed meanwhile
        return
    by_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    is_checkout = Path(folder).resolve() == Path(__file__).resolve().parent
    if by_module and not sys.flags.safe_path and not is_checkout:
        del sys.path[0]
    if folder not in sys.path:
        sys.path.append(folder)


if __name__ == "__main__":
    main()
