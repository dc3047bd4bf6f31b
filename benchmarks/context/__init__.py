"""The context engine beside its peers: speed, coverage of what missing code needs, reuse of the KV cache."""
