"""The root of all errors. Every room imports it from here, so this module imports none of them."""


class PrunesweepError(Exception):
    """Base of every error that prunesweep raises; `docs/errors.md` draws the tree."""
