"""Which folders of an image folder are classes, and which files train and test."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from workers.errors import DataError

_TRAIN = ("train", "training", "trn")
#: Words for what is held out, the better ones first.
_HELD_OUT = (
    "test",
    "testing",
    "eval",
    "evaluation",
    "holdout",
    "val",
    "valid",
    "validation",
    "dev",
    "tst",
)
_PLAIN = ("test", "val", "valid", "validation")  #: Alone, these come before all others.
_FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "split", ""}
_HOW = (
    "lay it out as train/CLASS/* and test/CLASS/* (or val/CLASS/*), or as CLASS/* alone, of which "
    "a fifth becomes the test split"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundClasses:
    """Classes in order of their names, and the files of each split with their labels."""

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]  #: Empty where there is no test folder.
    places: tuple[str, ...]  #: Folders right above the classes, ending in ``/`` unless the root.


def find_classes(files: Collection[str], folders: Collection[str], path: str) -> FoundClasses:
    """Tell classes and splits from the names of files and folders.

    An outer folder around everything is looked through. Splits go by their usual names, in any
    case, also with words around them where both have the same classes (``seg_train``,
    ``seg_test``). Of several test folders the first of test, val, valid and validation is used;
    validation is carved out of training, so that it is made alike for every data set.

    Raises:
        DataError: There are fewer than two classes, a class is empty, or train and test differ.
    """
    prefix = _outer(files, folders, "")
    tops = _by_class(files, folders, prefix)
    splits = {
        top: _split(members, folders, f"{prefix}{top}/")
        for top, members in tops.items()
        if _words(top) & {*_TRAIN, *_HELD_OUT}
    }
    train = _train_folder(splits, others=any(tops[top] for top in tops.keys() - splits.keys()))
    if train is None:
        _check_no_split(splits, path)
        chosen = _Split(prefix=prefix, found=tops)
        test = None
    else:
        chosen = splits[train]
        test = next(iter(_test_folders(splits, train)), None)
    classes = _checked(chosen.found, path, chosen.prefix)
    held_out = () if test is None else (splits[test],)
    for split in held_out:
        _check_same(classes, _checked(split.found, path, split.prefix), path, str(test))
    return FoundClasses(
        classes=classes,
        train=_labelled(chosen.found, classes),
        test=_labelled(held_out[0].found, classes) if held_out else (),
        places=tuple(split.prefix for split in (chosen, *held_out)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    """A folder that may be a split."""

    prefix: str  #: Right above its class folders, ending in ``/``.
    found: Mapping[str, list[str]]  #: Files by class folder.

    @property
    def filled(self) -> frozenset[str]:
        """Class folders with files in them."""
        return frozenset(name for name, members in self.found.items() if members)


def _split(files: Collection[str], folders: Collection[str], prefix: str) -> _Split:
    inside = [name for name in folders if name.startswith(prefix)]
    prefix = _outer(files, inside, prefix)
    return _Split(prefix=prefix, found=_by_class(files, inside, prefix))


def _train_folder(splits: Mapping[str, _Split], *, others: bool) -> str | None:
    """Return the folder to train on, or None where the folders are classes.

    A folder called ``train`` beside ``others`` that are no splits, without folders of its own, is
    a class of vehicles.
    """
    named = [top for top in splits if _role(top) in _TRAIN]
    if named:
        best = min(named, key=lambda top: (top != "train", top))
        has_test = any(_role(top) in _HELD_OUT for top in splits)
        is_class = not splits[best].found and others and not has_test
        return None if is_class else best
    for top in sorted(top for top in splits if _words(top) & {*_TRAIN}):
        classes = splits[top].filled
        alike = {other for other in splits if splits[other].filled == classes} - {top}
        if len(classes) > 1 and any(_words(other) & {*_HELD_OUT} for other in alike):
            return top
    return None


def _test_folders(splits: Mapping[str, _Split], train: str) -> list[str]:
    """Return the folders to test on, the best first: those with class folders."""
    is_named = _role(train) is not None

    def rank(top: str) -> tuple[int, int, str]:
        plain = _PLAIN.index(top) if top in _PLAIN else len(_PLAIN)
        words = [n for n, word in enumerate(_HELD_OUT) if word in _words(top)]
        return plain, words[0], top

    found = [
        top
        for top in splits
        if top != train
        and splits[top].found
        and (_role(top) in _HELD_OUT if is_named else bool(_words(top) & {*_HELD_OUT}))
    ]
    return sorted(found, key=rank)


def _check_no_split(splits: Mapping[str, _Split], path: str) -> None:
    """Refuse folders of splits of which none is to train on."""
    misplaced = sorted(
        top
        for top, split in splits.items()
        if top in _PLAIN or (_role(top) in _HELD_OUT and len(split.filled) > 1)
    )
    if misplaced:
        raise DataError(f"{path!r} has a folder {misplaced[0]!r} but no 'train'; {_HOW}.")


def _words(name: str) -> set[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TrainSet
    words = re.split(r"[^a-z]+", parted.lower())
    glued = (re.sub(r"(set|data|images?|imgs|split)$", "", word) for word in words)
    return {
        bare if bare in (*_TRAIN, *_HELD_OUT) else word
        for word, bare in zip(words, glued, strict=True)
    }


def _role(name: str) -> str | None:
    """Return which split a folder's name stands for, alone or with a word such as ``set``."""
    words = _words(name) - _FILLERS
    (only,) = words if len(words) == 1 else (None,)
    return only if only in (*_TRAIN, *_HELD_OUT) else None


def _outer(files: Collection[str], folders: Collection[str], prefix: str) -> str:
    """Path of the folders that merely wrap what lies below ``prefix``, ending in ``/``."""
    inside = [name.removeprefix(prefix) for name in files if name.startswith(prefix)]
    while True:
        tops = _tops(folders, prefix)
        wraps = bool(inside) and all(name.count("/") >= 2 for name in inside)
        if len(tops) != 1 or not wraps or tops <= {"train", *_PLAIN}:
            return prefix
        (top,) = tops
        prefix += f"{top}/"
        inside = [name.removeprefix(f"{top}/") for name in inside]


def _tops(folders: Iterable[str], prefix: str) -> set[str]:
    """Names of the folders right below ``prefix``."""
    return {name.removeprefix(prefix).split("/")[0] for name in folders if name.startswith(prefix)}


def _by_class(files: Iterable[str], folders: Iterable[str], prefix: str) -> dict[str, list[str]]:
    """Files of each folder right below ``prefix``, subfolders included."""
    found: dict[str, list[str]] = {top: [] for top in _tops(folders, prefix)}
    for name in sorted(files):
        if name.startswith(prefix):
            label, _, rest = name.removeprefix(prefix).partition("/")
            if rest:
                found[label].append(name)
    return found


def _checked(found: Mapping[str, list[str]], path: str, prefix: str) -> tuple[str, ...]:
    where = repr(path) + (f", folder {prefix!r}" if prefix else "")
    if len(found) < 2:
        raise DataError(f"{where}: found {len(found)} class folder(s), needs two or more; {_HOW}.")
    if empty := sorted(name for name, members in found.items() if not members):
        raise DataError(
            f"{where}: class {empty[0]!r} has no images ({len(empty)} such class(es)); add images "
            "or remove the folder."
        )
    by_case: dict[str, str] = {}
    for name in sorted(found):
        other = by_case.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"{where}: the classes {other!r} and {name!r} differ in upper and lower case only; "
                "join the folders, or rename one."
            )
    if nameless := sorted(name for name in found if not _is_text(name)):
        raise DataError(
            f"{where}: the class folder {nameless[0]!r} has a name that is not UTF-8; rename it."
        )
    return tuple(sorted(found))


def _is_text(name: str) -> bool:
    """Say whether a name is text; a file system takes any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _check_same(train: tuple[str, ...], test: tuple[str, ...], path: str, folder: str) -> None:
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if only_train or only_test:
        raise DataError(
            f"{path!r}: the classes of 'train' and {folder!r} differ: only in train "
            f"{only_train[:3]}, only in {folder} {only_test[:3]}; both must have the same folders."
        )


def _labelled(
    found: Mapping[str, list[str]], classes: tuple[str, ...]
) -> tuple[tuple[str, int], ...]:
    return tuple((name, label) for label, key in enumerate(classes) for name in found[key])
