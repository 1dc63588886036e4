"""Ray: connecting, workers, losses, and jobs sent to a cluster (the only home of Ray here)."""
