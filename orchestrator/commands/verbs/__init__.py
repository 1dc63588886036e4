"""What is typed for each verb: its arguments, and the one thing it calls."""
