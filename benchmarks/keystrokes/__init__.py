"""The speed of typing: what the transformer costs, what its cache of completions saves, and what many typists get."""
