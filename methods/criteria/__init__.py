"""Criteria that score filters, and allocations that share a cut out between groups."""
