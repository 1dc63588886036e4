"""A comparison as people read it: terminal, Markdown, HTML and JSON."""
