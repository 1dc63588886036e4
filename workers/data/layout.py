"""Which folders of an image folder are classes, and which files train and test."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from workers.errors import DataError

_TEST_FOLDERS = ("test", "val", "valid", "validation")  #: The first with class folders is taken.
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


def find_classes(files: Collection[str], folders: Collection[str], path: str) -> FoundClasses:
    """Tell classes and splits from the names of files and folders.

    An outer folder around everything is looked through. Of several test folders the first of
    test, val, valid and validation is used; validation is carved out of training, so that it is
    made alike for every data set.

    Raises:
        DataError: There are fewer than two classes, a class is empty, or train and test differ.
    """
    prefix = _outer(files, folders)
    tops = _tops(folders, prefix)
    if "train" not in tops:
        if misplaced := sorted(tops.intersection(_TEST_FOLDERS)):
            raise DataError(f"{path!r} has a folder {misplaced[0]!r} but no 'train'; {_HOW}.")
        train = _by_class(files, folders, prefix)
        classes = _checked(train, path, prefix)
        return FoundClasses(classes=classes, train=_labelled(train, classes), test=())
    train = _by_class(files, folders, f"{prefix}train/")
    classes = _checked(train, path, f"{prefix}train/")
    for folder in _TEST_FOLDERS:
        test = _by_class(files, folders, f"{prefix}{folder}/")
        if test:
            _check_same(classes, _checked(test, path, f"{prefix}{folder}/"), path, folder)
            return FoundClasses(
                classes=classes, train=_labelled(train, classes), test=_labelled(test, classes)
            )
    return FoundClasses(classes=classes, train=_labelled(train, classes), test=())


def _outer(files: Collection[str], folders: Collection[str]) -> str:
    """Path of the folders that merely wrap the data set, ending in ``/``, or nothing."""
    prefix = ""
    while True:
        tops = _tops(folders, prefix)
        wraps = bool(files) and all(
            name.startswith(prefix) and name.removeprefix(prefix).count("/") >= 2 for name in files
        )
        if len(tops) != 1 or not wraps or tops <= {"train", *_TEST_FOLDERS}:
            return prefix
        prefix += f"{tops.pop()}/"


def _tops(folders: Iterable[str], prefix: str) -> set[str]:
    """Names of the folders right below ``prefix``."""
    return {name.removeprefix(prefix).split("/")[0] for name in folders if name.startswith(prefix)}


def _by_class(files: Iterable[str], folders: Iterable[str], prefix: str) -> dict[str, list[str]]:
    """Files of each folder right below ``prefix``, subfolders included."""
    found: dict[str, list[str]] = {top: [] for top in _tops(folders, prefix)}
    for name in sorted(files):
        label, _, rest = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and rest:
            found[label].append(name)
    return found


def _checked(found: dict[str, list[str]], path: str, prefix: str) -> tuple[str, ...]:
    where = repr(path) + (f", folder {prefix!r}" if prefix else "")
    if len(found) < 2:
        raise DataError(f"{where}: found {len(found)} class folder(s), needs two or more; {_HOW}.")
    if empty := sorted(name for name, members in found.items() if not members):
        raise DataError(
            f"{where}: class {empty[0]!r} has no images ({len(empty)} such class(es)); add images "
            "or remove the folder."
        )
    return tuple(sorted(found))


def _check_same(train: tuple[str, ...], test: tuple[str, ...], path: str, folder: str) -> None:
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if only_train or only_test:
        raise DataError(
            f"{path!r}: the classes of 'train' and {folder!r} differ: only in train "
            f"{only_train[:3]}, only in {folder} {only_test[:3]}; both must have the same folders."
        )


def _labelled(found: dict[str, list[str]], classes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, label) for label, key in enumerate(classes) for name in found[key])
