"""The fate of suggestions: counted for Prometheus, and, where operator and user allow it, kept as feedback.

Nothing here depends on a request in progress: `recent_suggestions` holds those of each tenant, `counts` the metrics,
`report` reads what clients report and refuses what cannot be true, `writer` writes the dataset.
"""
