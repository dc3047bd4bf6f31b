"""The feedback dataset: what users made of suggestions, one JSON object a line, in a folder for each tenant.

The transformer writes it, the preferences stage reads it; docs/reference/feedback.md describes the format.
"""
