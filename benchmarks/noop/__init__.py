"""Trials that do nothing, run by us and by Ray Tune: what is left is the overhead."""
