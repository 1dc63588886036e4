"""What is asked of a driver that may run elsewhere, through the ledger."""
