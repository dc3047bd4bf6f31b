"""The context engine against its peers: speed, coverage of the identifiers in missing code, reuse of the KV cache."""
