"""What a specification can name: described from the code, and listed from what was described."""
