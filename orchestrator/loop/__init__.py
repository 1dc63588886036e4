"""The loop that runs a sweep, the backend it drives, outages and progress."""
