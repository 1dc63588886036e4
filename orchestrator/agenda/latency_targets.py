"""Latency targets: the model by which proposals meet them, and how it is measured and verified."""

from collections.abc import Callable

import numpy as np
import torch

from methods import CostTarget
from methods.structure.cost import Axis, Counts
from methods.structure.latency_predictor import LatencyPredictor, PredictorSettings
from orchestrator.agenda.prunable import PrunableNetwork
from orchestrator.specification.spec import SweepSpec
from search_spaces import Projected, TargetInfeasibleError, project
from tracking.artifacts import ArtifactStore
from workers.timing.predictor import read_predictor

ReadModel = Callable[[str], LatencyPredictor]  #: By content hash.


def reader(artifacts_url: str) -> ReadModel:
    """Return what reads latency models of an artifact store."""
    return lambda content: read_predictor(ArtifactStore(artifacts_url), content)


def settings_of(spec: SweepSpec) -> PredictorSettings | None:
    """Return how the latency model of the targets is made; None: there are no such targets."""
    if spec.targets is None or not spec.latency_targets:
        return None
    how = spec.targets.latency
    return PredictorSettings(
        samples=how.samples, batch_size=how.batch, runtime=how.runtime, threads=how.threads
    )


class LatencyCosts:
    """Milliseconds a batch, predicted, where `project` looks for a cost."""

    def __init__(self, model: LatencyPredictor) -> None:
        self.groups, self.widths = model.groups, model.widths
        self._model = model

    def cost(self, axis: Axis, kept: Counts) -> float:
        """Return the predicted latency of the filters kept, in the order of ``groups``."""
        return float(self._model.latency_ms(torch.from_numpy(kept.astype(np.float64))))

    def dense(self, axis: Axis) -> float:
        """Return the predicted latency of the unpruned network."""
        return self._model.dense_ms


class LatencyTargets:
    """The latency targets of a sweep, and the model they are met by once it was measured."""

    def __init__(self, spec: SweepSpec, read: ReadModel | None) -> None:
        self.settings = settings_of(spec)
        self._targets, self._tolerance = spec.latency_targets, spec.search.tolerance
        self._read = read or reader(spec.tracking.artifacts_url)
        self.content: str | None = None  #: Content hash of the model.
        self.costs: LatencyCosts | None = None

    @property
    def is_awaited(self) -> bool:
        """Nothing can be proposed yet, as the model is still to be measured."""
        return self.settings is not None and self.costs is None

    def came(self, content: str | None, prunable: PrunableNetwork) -> str | None:
        """Take the model in; return why the targets cannot be met, None: they can."""
        if content is None:
            return (
                "The latency model could not be measured, and targets.latency_reduction needs it."
            )
        self.content, self.costs = content, LatencyCosts(self._read(content))
        for target in self._targets:
            try:
                self.uniform(target, prunable)
            except TargetInfeasibleError as error:
                return str(error)
        return None

    def uniform(self, target: CostTarget, prunable: PrunableNetwork) -> Projected:
        """Return the same ratio for every group, as near as whole filters allow, at ``target``."""
        assert self.costs is not None  # controls are due once the model is there
        same = dict.fromkeys(prunable.space.dimensions, 1.0)
        return project(same, prunable.space, self.costs, target, self._tolerance)
