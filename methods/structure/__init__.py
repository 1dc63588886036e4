"""What a network is made of and how it shrinks: groups, costs, plans, surgery (torch-pruning)."""
