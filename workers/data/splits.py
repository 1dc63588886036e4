"""Which images train, which select, which test: stratified, seeded, the same on every machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.data.source import Items
from workers.errors import DataError
from workers.settings import DataSettings

_HELD_OUT = 0.2  #: Share that becomes the test split where a data set has none.
_HELD_OUT_SEED = 0  #: Fixed: another validation split must not move the test split.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Splits:
    """Item numbers of each split, in shuffled order: any first few are a random sample."""

    train: Items
    val: Items
    test: Items

    @property
    def train_pool(self) -> Items:
        """Training and validation items, ascending: what is decoded together."""
        return np.sort(np.concatenate([self.train, self.val]))

    @property
    def test_pool(self) -> Items:
        """Test items, ascending."""
        return np.sort(self.test)


def make_splits(
    labels: Items,
    classes: Sequence[str],
    *,
    train_items: Items,
    test_items: Items,
    settings: DataSettings,
) -> Splits:
    """Hold out a test split if there is none, take the subsets, carve out the validation split.

    Raises:
        DataError: A subset asks for more images than there are, or a class is too small to split.
    """
    if not len(test_items):
        draw = _generator("test", _HELD_OUT_SEED)
        test_items, train_items = _stratified(labels, train_items, _HELD_OUT, classes, draw)
    draw = _generator("subset", settings.split_seed)
    train_items = _balanced(labels, train_items, settings.train_images, classes, "train", draw)
    test_items = _balanced(labels, test_items, settings.test_images, classes, "test", draw)
    draw = _generator("validation", settings.split_seed)
    val, train = _stratified(labels, train_items, settings.validation_fraction, classes, draw)
    return Splits(
        train=draw.permutation(train), val=draw.permutation(val), test=draw.permutation(test_items)
    )


def _generator(purpose: str, seed: int) -> np.random.RandomState:
    """A legacy generator, because NumPy promises never to change its stream."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return np.random.RandomState(int.from_bytes(digest[:4]))


def _stratified(
    labels: Items,
    items: Items,
    fraction: float,
    classes: Sequence[str],
    draw: np.random.RandomState,
) -> tuple[Items, Items]:
    """Take ``fraction`` of each class, one image at least; return the taken and the rest."""
    taken, rest = [], []
    for label, name in enumerate(classes):
        members = draw.permutation(items[labels[items] == label])
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            raise DataError(
                f"Class {name!r} has {len(members)} image(s); holding out {fraction:g} of them "
                "leaves none to train on. Add images of it or lower data.validation_fraction."
            )
        taken.append(members[:count])
        rest.append(members[count:])
    return np.concatenate(taken), np.concatenate(rest)


def _balanced(
    labels: Items,
    items: Items,
    count: int | None,
    classes: Sequence[str],
    part: str,
    draw: np.random.RandomState,
) -> Items:
    """Take ``count`` images, as many of each class; the first classes give what is left over."""
    if count is None:
        return items
    if count < len(classes):
        raise DataError(
            f"data.{part}_images is {count}, but there are {len(classes)} classes and each needs "
            "an image; ask for more."
        )
    each, more = divmod(count, len(classes))
    taken = []
    for label, name in enumerate(classes):
        members = items[labels[items] == label]
        wanted = each + (label < more)
        if wanted > len(members):
            raise DataError(
                f"data.{part}_images is {count}, {wanted} of each class, but class {name!r} has "
                f"{len(members)} {part} image(s); ask for at most "
                f"{min(np.bincount(labels[items], minlength=len(classes))) * len(classes)}, "
                "or leave it out to use all."
            )
        taken.append(draw.permutation(members)[:wanted])
    return np.concatenate(taken)
