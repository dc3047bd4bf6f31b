"""Stages as RayJobs on Kubernetes: build (`job`), size (`sizing`), start and follow (`launch`), explain (`failure`).

Only `api` imports the kubernetes client; the objects in this package are plain dicts.
"""
