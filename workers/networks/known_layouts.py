"""Layouts that trials share: a network is grouped and proven once, by whichever trial is first."""

import json
import logging
from contextlib import suppress

from torch import nn

from methods import LayerPolicy, Layout, find_layout
from methods.structure.stored_layout import layout_from_json, layout_to_json
from tracking.artifacts import ArtifactNotFoundError
from workers.files import SharedFiles, file_lock

log = logging.getLogger(__name__)


def known_layout(
    files: SharedFiles,
    name: str,
    network: nn.Module,
    input_shape: tuple[int, int, int],
    policy: LayerPolicy,
) -> Layout:
    """Return the layout called ``name``, found now unless it is kept.

    One that is kept is of a network of the same layers, classes and code; that this one runs
    through them alike is seen here, and that it computes the same once it is pruned in every trial.

    Args:
        files: Where it may be.
        name: Made of all that it depends on.
        network: The dense network.
        input_shape: ``(C, H, W)`` of one image.
        policy: Which groups may lose filters.

    Raises:
        LayoutError: Nothing may be pruned, or the policy does not fit the network.
    """
    path = f"layouts/{name}.json"
    with file_lock(files.cache_dir / "locks" / name):  # others on this machine wait for the first
        with suppress(ArtifactNotFoundError, ValueError, KeyError, TypeError):
            kept = layout_from_json(json.loads(files.read(path)), network, input_shape, policy)
            if kept is not None:
                return kept
        found = find_layout(network, input_shape, policy)
        try:
            files.write(path, json.dumps(layout_to_json(found, network)).encode())
        except OSError as error:
            log.warning("The groups of the network are not shared with other trials: %s", error)
        return found
