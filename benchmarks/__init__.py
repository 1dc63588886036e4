"""What prunesweep costs, measured; README.md lists what there is and what it said last."""
