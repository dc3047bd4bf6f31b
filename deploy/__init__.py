"""A test cluster, checks of runs on it, and the table of resources in the operator's guide."""
