"""What becomes of suggestions: counted for Prometheus, and, where operator and user allow it, kept as feedback.

Nothing here depends on a request in progress: `memory` holds the latest suggestions of each tenant, `counts` the
metrics, `report` reads what clients report and refuses what cannot be true, `feedback` writes the dataset.
"""
