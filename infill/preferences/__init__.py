"""Pairs of a better and a worse completion of the same hole, for DPO."""
