"""Images for a trial: checked at the door, decoded once per node, split without leaks."""

from workers.data.augment import Augmentation
from workers.data.dataset import DataSet, Split
from workers.data.info import DataInfo
from workers.data.loading import describe, load

__all__ = ["Augmentation", "DataInfo", "DataSet", "Split", "describe", "load"]
