"""The KServe transformer, the embedded predictor, and what starts and asks them."""
