"""A sweep while a saboteur kills what it runs on, and what must be true of it in the end."""
