"""Stages as RayJobs on Kubernetes: build (`job`), size (`sizing`), start and follow (`launch`), explain (`failure`).

`api` alone imports the kubernetes client; the objects that travel through this package are plain dicts.
"""
