"""How a cluster for tests is made and what must hold on it."""
