"""What numbers of a few seeds say: summaries, moderated variances, tests and their corrections."""
