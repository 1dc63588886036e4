"""Stripe-wise pruning: a learned skeleton says which stripes of each filter stay."""
