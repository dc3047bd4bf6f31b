"""The release of a model, from evaluation to serving: the gate, the registry, the deployment record."""
