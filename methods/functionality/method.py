"""Pruning filters whose function another filter has as well.

Sources: Qin et al., "Functionality-Oriented Convolutional Filter Pruning", arXiv:1810.07322, and
"Demystifying Neural Network Filter Pruning", arXiv:1811.02639. Only their abstracts could be read
and there is no official code, so the details here are ours.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import PruningMethod, Session, register
from methods.criteria.contribution import contributions
from methods.criteria.filter_norm import FilterNorm
from methods.criteria.random_filters import RandomPruning
from methods.errors import MethodError
from methods.functionality.activation_maximisation import (
    Ascent,
    Start,
    draw_start,
    maximise,
    responses,
)
from methods.functionality.compensation import check_readers, fold, read_moments
from methods.functionality.filter_clusters import cluster_filters, redundant_filters
from methods.schedule import Schedule
from methods.structure.cost import evaluation_mode
from methods.structure.layout import Group, Layout
from methods.structure.plan import PruningPlan, Ratios

log = logging.getLogger(__name__)

Clusters = Mapping[str, Sequence[int]]  #: Cluster of each filter, by group.


@register()
@dataclass(frozen=True, kw_only=True)
class Functionality(PruningMethod):
    """Cluster the filters of a group by what they do; prune the least in each cluster.

    ``grouping`` says by what filters are alike, ``contribution`` which of a cluster go first; the
    two combine freely. ``none`` with ``l1`` is the norm baseline, ``none`` with ``random`` the
    random one. Clusters come from the network as it was before any pruning, whatever the schedule;
    contributions from the network as it is when filters are chosen. A group with several producers
    is clustered by what filter ``i`` does in all of them, signatures side by side, for redundant is
    only what is redundant everywhere.

    Chosen by us, the papers' being unknown: mean response before the rectifier, normalised steps,
    pixels within the range of the training images, standardised signatures, quotas, and a random
    start image and k-means++ that depend on the trial's seed.
    """

    name: ClassVar[str] = "functionality"
    revision: ClassVar[int] = 2  #: 2: the images of ascents are charged.
    source: ClassVar[str] = "Qin et al., arXiv:1810.07322 and arXiv:1811.02639 (abstracts)"
    #: Images of activation maximisation; all filters' responses to them; own weights; one cluster.
    grouping: Literal["am_pixels", "am_response", "weights_kmeans", "none"] = "am_pixels"
    contribution: Literal["grad", "taylor", "l1", "random"] = "grad"  #: Lowest goes first.
    kappa: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25  #: Clusters per filter; two at least.
    am_steps: Annotated[int, Field(ge=1)] = 60
    am_step_size: Annotated[float, Field(gt=0.0)] = 1.0  #: Length, in normalised pixels.
    am_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 1e-3  #: Share of the image lost per step.
    am_noise: Annotated[float, Field(ge=0.0)] = 0.1  #: Of the start image, in normalised pixels.
    images: Annotated[int, Field(ge=1)] = 1024  #: Training images to measure on.
    batch_size: Annotated[int, Field(ge=1)] = 128  #: Images at once; for memory only.
    merge: bool = False  #: Fold what is removed into the weights that read its cluster's rest.
    merge_fit: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  #: R squared it takes to be folded.

    def check(self, network: nn.Module, layout: Layout) -> None:
        """Refuse to merge where not all that reads a pruned filter is a plain layer.

        Raises:
            MethodError: Which layer or group it is.
        """
        if self.merge:
            check_readers(network, layout)

    def images_made(self, layout: Layout) -> int:
        """Return the image passes of all ascents: one a step, filter and producer."""
        if self.grouping not in ("am_pixels", "am_response"):
            return 0
        return self.am_steps * sum(group.width * len(group.producers) for group in layout.groups)

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the contribution of every filter, by group, ``[filters]``."""
        if self.contribution == "l1":
            return FilterNorm(p=1.0).scores(network, session)
        if self.contribution == "random":
            return RandomPruning().scores(network, session)
        kind = self.contribution
        found = session.statistics(
            network,
            f"functionality contributions {kind} {self.images}",
            lambda: contributions(
                network, session.layout, session.batches(self.images, self.batch_size), kind
            ),
        )
        return {name: values.float().cpu() for name, values in found.items()}

    def choose(self, group: Group, scores: Tensor, count: int) -> list[int]:
        """Refuse: scores alone do not say which filters are alike.

        Raises:
            MethodError: Always; ``select`` clusters first.
        """
        raise MethodError(
            f"The method {self.name!r} cannot choose in {group.name!r} by scores alone, it needs "
            "clusters. Call its select, which finds them."
        )

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Cluster, then choose by the session's schedule; with ``merge``, readers' weights change.

        Raises:
            MethodError: ``merge`` is on and the schedule trains.
        """
        if self.merge and isinstance(session.schedule, Schedule) and session.schedule.selection:
            raise MethodError(
                f"The schedule {session.schedule.name!r} trains while filters fade, and what "
                "emits nothing cannot be merged. Set 'merge' to false, or take the schedule "
                "'one_shot'."
            )
        clusters = self.clusters(network, session)
        clustered = Clustered(method=self, clusters=clusters)
        plan = session.schedule.select(clustered, network, ratios, session)
        session.note("whole_cluster_share", whole_share(plan, clusters))
        if self.merge:
            moments = session.statistics(
                network,
                f"functionality moments {self.images}",
                lambda: read_moments(
                    network, session.layout, session.batches(self.images, self.batch_size)
                ),
            )
            folding = fold(network, session.layout, plan, clusters, moments, self.merge_fit)
            session.note("removals_merged", folding.folded)
            session.note("removals_not_merged", folding.refused)
        return plan

    def clusters(self, network: nn.Module, session: Session) -> Clusters:
        """Return the cluster of each filter, by group; the same for all ratios."""
        groups = session.layout.groups
        if self.grouping == "none":
            return {group.name: (0,) * group.width for group in groups}
        signatures = self.signatures(network, session)
        found = {}
        for group in groups:
            drawn = torch.randint(2**31, (), generator=session.generator(f"k-means {group.name}"))
            count = max(2, round(self.kappa * group.width))
            found[group.name] = cluster_filters(signatures[group.name], count, int(drawn))
        return found

    def signatures(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return what each filter does, by group, ``[filters, D]``: alike is what is near.

        Only distances matter, so that long signatures are rotated into as many dimensions as there
        are filters; they are shared between trials, and pixels are many.
        """
        if self.grouping == "weights_kmeans":
            return {g.name: _shorten(_weights(network, g)) for g in session.layout.groups}
        ascent = Ascent(
            steps=self.am_steps,
            step_size=self.am_step_size,
            decay=self.am_decay,
            noise=self.am_noise,
            batch_size=self.batch_size,
        )
        return session.statistics(
            network,
            f"functionality signatures charged {self.grouping} {self.images} {ascent}",
            lambda: self._maximise_all(network, session, ascent),
        )

    def _maximise_all(
        self, network: nn.Module, session: Session, ascent: Ascent
    ) -> dict[str, Tensor]:
        passes = self.images_made(session.layout)
        log.info(
            "Activation maximisation passes %d images forward and back, %d steps for each filter: "
            "%.1f times the %d images that a contribution takes.",
            *(passes, ascent.steps, passes / self.images, self.images),
        )
        start = draw_start(session, ascent.noise, self.images)
        session.charge(passes)
        return {
            group.name: _shorten(
                torch.cat(
                    [
                        self._signature(network, norm or producer, group.width, start, ascent)
                        for producer, norm in zip(group.producers, group.norms, strict=True)
                    ],
                    dim=1,
                )
            )
            for group in session.layout.groups
        }

    def _signature(
        self, network: nn.Module, layer: str, width: int, start: Start, ascent: Ascent
    ) -> Tensor:
        found = maximise(network, layer, range(width), start, ascent)
        if self.grouping == "am_response":
            with evaluation_mode(network), torch.no_grad():
                parts = [
                    responses(network, layer, x) for x in torch.split(found, ascent.batch_size)
                ]
            found = torch.cat(parts)
        return _standardised(found.flatten(1))


@dataclass(frozen=True, kw_only=True)
class Clustered(PruningMethod):
    """The method with the clusters of one network: what a schedule chooses with."""

    name: ClassVar[str] = Functionality.name
    method: Functionality
    clusters: Clusters

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the contribution of every filter, by group, ``[filters]``."""
        return self.method.scores(network, session)

    def choose(self, group: Group, scores: Tensor, count: int) -> list[int]:
        """Return the ``count`` filters to prune: the lowest of each cluster."""
        return redundant_filters(self.clusters[group.name], scores, count)


def whole_share(plan: PruningPlan, clusters: Clusters) -> float:
    """Return the share of removals that no cluster could spare, in [0, 1].

    There the argument that another filter does the same no longer holds.
    """
    removed = {name: plan.widths[name] - len(kept) for name, kept in plan.kept.items()}
    beyond = [
        max(0, count - (plan.widths[name] - len(set(clusters[name]))))
        for name, count in removed.items()
    ]
    return sum(beyond) / max(1, sum(removed.values()))


def _weights(network: nn.Module, group: Group) -> Tensor:
    found = []
    for producer in group.producers:
        weight = network.get_submodule(producer).weight
        assert isinstance(weight, Tensor)
        found.append(weight.detach().flatten(1))
    return torch.cat(found, dim=1)


def _standardised(signatures: Tensor) -> Tensor:
    """Take mean and length out of each row: the pattern counts, not its contrast."""
    centred = signatures - signatures.mean(dim=1, keepdim=True)
    return nn.functional.normalize(centred, dim=1)


def _shorten(signatures: Tensor) -> Tensor:
    """Rotate ``[filters, D]`` into ``[filters, filters]`` where that is less; distances stay."""
    filters, length = signatures.shape
    if length <= filters:
        return signatures
    triangle: Tensor = torch.linalg.qr(
        signatures.double().cpu().T, mode="r"
    ).R  # [filters, filters]
    return triangle.T.float().contiguous()
