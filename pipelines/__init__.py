"""The KFP pipeline, and the commands that compile it, run it on this machine and submit it."""
