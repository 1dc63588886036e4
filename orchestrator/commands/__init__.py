"""The command line: verbs, what they show, and how they exit."""
