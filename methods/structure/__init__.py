"""What a network is made of and how it gets smaller: groups, costs, plans, surgery (torch-pruning)."""
