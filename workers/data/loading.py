"""The door to a data set: described cheaply before a sweep, loaded once per worker."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.data.archive import unreadable
from workers.data.cache import decoded
from workers.data.catalog import open_source
from workers.data.dataset import DataSet, Split
from workers.data.info import DataInfo, inspect_data
from workers.data.source import Items, Source
from workers.data.splits import Splits, make_splits
from workers.data.stores import ImageStore, StreamStore, TensorStore
from workers.files import fetched
from workers.settings import DataSettings

MEMORY_LIMIT = 2 << 30  #: Bytes of decoded images above which they are streamed.


def describe(settings: DataSettings) -> DataInfo:
    """Check that a data set is there and usable, and say what it holds.

    Decodes a few hundred images at most. A corrupt file beyond those comes to light in ``load``.

    Raises:
        DataError: It is missing, laid out wrongly, or smaller than the settings ask for.
    """
    source, splits = _opened(settings)
    return inspect_data(settings, source, splits)


def load(
    settings: DataSettings,
    device: torch.device | str,
    cache_dir: Path | str,
    *,
    memory_limit: int = MEMORY_LIMIT,
) -> DataSet:
    """Load a data set for use on ``device``.

    A zip file at a URL is fetched into ``cache_dir`` first, once per machine. Up to
    ``memory_limit`` bytes, the decoded images are kept in files there, which the workers of a node
    share, and moved to the GPU when they fit in half its free memory. Above, images are decoded
    anew each time they are read.

    Raises:
        DataError: As for ``describe``; an ``ImageError`` names the file that is corrupt.
    """
    device = torch.device(device)
    source, splits = _opened(_brought_here(settings, Path(cache_dir)))
    info = inspect_data(settings, source, splits)
    pools = (splits.train_pool, splits.test_pool)
    size = sum(len(pool) for pool in pools) * int(np.prod(source.shape))
    if size > memory_limit:
        stores: list[ImageStore] = [
            StreamStore(source=source, items=pool, device=device) for pool in pools
        ]
    else:
        on_device = device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2
        home = device if on_device else torch.device("cpu")
        stores = [
            TensorStore(images=decoded(source, pool, Path(cache_dir)).to(home), device=device)
            for pool in pools
        ]

    def split(items: Items, pool: Items, store: ImageStore) -> Split:
        labels: Tensor = torch.from_numpy(source.labels[items]).to(device)
        return Split(
            store=store, rows=torch.from_numpy(np.searchsorted(pool, items)), labels=labels
        )

    return DataSet(
        info,
        train=split(splits.train, pools[0], stores[0]),
        val=split(splits.val, pools[0], stores[0]),
        test=split(splits.test, pools[1], stores[1]),
        device=device,
    )


def _brought_here(settings: DataSettings, cache_dir: Path) -> DataSettings:
    """Return the settings with a local path, to a copy of what a URL holds."""
    if settings.path is None or "://" not in settings.path:
        return settings
    try:
        return settings.model_copy(update={"path": str(fetched(settings.path, cache_dir))})
    except Exception as error:  # each kind of store has its own
        raise unreadable(settings.path, error) from error


def _opened(settings: DataSettings) -> tuple[Source, Splits]:
    source = open_source(settings)
    splits = make_splits(
        source.labels,
        source.classes,
        train_items=source.train_items,
        test_items=source.test_items,
        settings=settings,
    )
    return source, splits
