"""Provable filter pruning by empirical sensitivity (Liebenwein et al., ICLR 2020)."""
