"""What to remove, and removing it: criteria, schedules, plan, surgery."""
