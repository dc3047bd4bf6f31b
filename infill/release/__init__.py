"""From evaluated models to the one that is served: the gate, the registry, the deployment record."""
