"""Functionality-oriented pruning: filters that see the same pattern are redundant."""
