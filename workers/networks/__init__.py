"""Weights and shapes of networks, as trials read and build them."""
