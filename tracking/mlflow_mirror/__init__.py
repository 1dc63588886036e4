"""What MLflow shows of the ledger, and the process that sends it (the only home of MLflow)."""
