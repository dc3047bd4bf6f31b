"""Stages as RayJobs on Kubernetes: build (`stage_job`), start and follow (`lifecycle`), explain (`failure`).

Only `api` imports the kubernetes client; the objects in this package are plain dicts.
"""
