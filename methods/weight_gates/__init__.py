"""Weight-dependent gates, and their search under a measured latency."""
