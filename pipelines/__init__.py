"""The pipeline as KFP sees it, and how it is compiled, run here and submitted."""
