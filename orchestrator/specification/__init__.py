"""What a user asks for: the specification, read, checked, and compared with what is stored."""
