"""Measurements side by side with peers; each prints one JSON object as its last line."""
