"""Measured latency: of a network, and of the predictor that learns it."""
