"""Filters that do the same: found by clustering, and pruned so that one of each kind stays.

Source: Qin et al., "Functionality-Oriented Convolutional Filter Pruning", arXiv:1810.07322.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

RESTARTS = 10  #: Runs of k-means, the best of which counts.


def cluster_filters(signatures: Tensor, clusters: int, seed: int) -> tuple[int, ...]:
    """Return the cluster of each filter, by k-means++ on what the filters do.

    Filters that change places keep their clusters: k-means sees them in an order that their
    signatures alone decide. Where fewer signatures differ than there are to be clusters, there are
    fewer clusters.

    Args:
        signatures: ``[filters, D]``; the Euclidean distance says how much two filters differ.
        clusters: How many; as many as there are filters, or more, puts each in one of its own.
        seed: Of k-means.

    Returns:
        A number per filter; equal numbers share a cluster.
    """
    if clusters >= len(signatures):
        return tuple(range(len(signatures)))
    from sklearn.cluster import KMeans  # takes a second, which other methods need not wait for
    from sklearn.exceptions import ConvergenceWarning

    points = signatures.double().cpu().numpy()
    order = np.argsort(np.linalg.norm(points - points.mean(axis=0), axis=1), kind="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal signatures
        found = KMeans(clusters, n_init=RESTARTS, random_state=seed).fit(points[order]).labels_
    return tuple(int(label) for label in found[np.argsort(order)])


def redundant_filters(clusters: Sequence[int], scores: Tensor, count: int) -> list[int]:
    """Return the ``count`` filters to prune: those of lowest score among their like.

    Larger clusters lose more and the last filter of a cluster stays; only when every cluster is
    down to one filter do whole clusters go, the lowest score first. Filters that a schedule has
    made hard, with a score of minus infinity, go before all others, which share out the rest.

    Args:
        clusters: Cluster of each filter.
        scores: ``[filters]``
        count: How many filters go, fewer than there are.
    """
    order: list[int] = torch.argsort(scores, stable=True).tolist()
    hard = [index for index in order if scores[index] == -math.inf][:count]
    members: dict[int, list[int]] = {}  # by ascending score, clusters too
    for index in order[len(hard) :]:
        members.setdefault(clusters[index], []).append(index)
    left = count - len(hard)
    quotas = share_out(left, [len(cluster) - 1 for cluster in members.values()])
    spare = {i for cluster, n in zip(members.values(), quotas, strict=True) for i in cluster[:n]}
    last = {cluster[-1] for cluster in members.values()}
    whole = [index for index in order if index in last][: left - len(spare)]
    return [*hard, *(index for index in order if index in spare), *whole]


def share_out(count: int, spare: Sequence[int]) -> list[int]:
    """Share ``count`` removals out in proportion to what each cluster can spare.

    Fractions are settled by the largest remainder, ties in favour of the cluster named first. No
    cluster gives more than it can spare, and together they give no more than they all can.
    """
    total = sum(spare)
    if count >= total:
        return list(spare)
    quotas = [count * n // total for n in spare]
    by_remainder = sorted(range(len(spare)), key=lambda c: -(count * spare[c] % total))
    for cluster in by_remainder[: count - sum(quotas)]:
        quotas[cluster] += 1
    return quotas
