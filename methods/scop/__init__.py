"""SCOP: filters are held against knockoff features (Tang et al., NeurIPS 2020)."""
