"""What a sampler remembers, as JSON: Optuna's attributes of one proposal, without pickles.

Optuna keeps a sampler's memory in attributes of the trials and of the study. CMA-ES keeps a pickle
there; a pickle read from a database runs whatever code was put into it, so only the numbers that
evolve are stored, and the pickle is made again here.
"""

import pickle
from collections.abc import Mapping
from typing import Any

import cmaes
import numpy as np

_OPTIMIZER = "cma:optimizer:"
_REDUNDANT = ("tpe:relative_params:", "gp:relative_params:")  # copies of the trial's parameters
_VECTORS = ("_mean", "_p_sigma", "_pc", "_c_1d")
_NUMBERS = {"_sigma": float, "_g": int}


def to_json(trial: Mapping[str, Any], study: Mapping[str, Any]) -> dict[str, Any]:
    """Return as JSON the attributes that one ``ask`` left on its trial and on the study."""
    kept = {
        key: value
        for key, value in trial.items()
        if not key.startswith(_REDUNDANT) and not _is_pickle(key)
    }
    state: dict[str, Any] = {"trial": kept, "study": dict(study)}
    parts = sum(key.startswith(_OPTIMIZER) for key in trial)
    if parts:
        pickled = "".join(trial[f"{_OPTIMIZER}{i}"] for i in range(parts))
        state["cmaes"] = _optimizer_to_json(pickle.loads(bytes.fromhex(pickled)))  # our own
    return state


def from_json(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes of the trial and of the study that ``to_json`` was given.

    A pickle among the stored attributes is not one of ours, and is dropped unread.
    """
    trial = {key: value for key, value in state["trial"].items() if not _is_pickle(key)}
    study = dict(state["study"])
    if "cmaes" in state:
        trial[f"{_OPTIMIZER}0"] = pickle.dumps(_optimizer_from_json(state["cmaes"])).hex()
    return trial, study


def _is_pickle(key: str) -> bool:
    return key.startswith(_OPTIMIZER)


def _optimizer_to_json(optimizer: cmaes.CMA) -> dict[str, Any]:
    memory = optimizer.__getstate__()
    vectors = {name: memory[name].tolist() for name in _VECTORS}
    return vectors | {name: kind(memory[name]) for name, kind in _NUMBERS.items()}


def _optimizer_from_json(numbers: Mapping[str, Any]) -> cmaes.CMA:
    dimensions = len(numbers["_mean"])
    optimizer = cmaes.CMA(  # as Optuna makes it
        mean=np.full(dimensions, 0.5),
        sigma=1 / 6,
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        n_max_resampling=10 * dimensions,
    )
    memory = optimizer.__getstate__()
    memory |= {name: np.array(numbers[name], dtype=np.float64) for name in _VECTORS}
    memory |= {name: kind(numbers[name]) for name, kind in _NUMBERS.items()}
    optimizer.__setstate__(memory)
    return optimizer
