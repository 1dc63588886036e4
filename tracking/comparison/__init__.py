"""Stored trials read as an answer: rows, tests, fronts; from records, never from the database."""
