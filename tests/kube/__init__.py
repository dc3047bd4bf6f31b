"""Kubernetes without a cluster: the CRDs' structural schemas and an API server for tests."""
