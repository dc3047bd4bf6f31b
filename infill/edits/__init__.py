"""A benchmark from history: holes are lines that commits added, their context is the repository before the commit."""
