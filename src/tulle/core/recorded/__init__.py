"""Recorded calls folded into shapes, within bounds. Pure: `paths.py`, `folding.py`, and `shares.py` (how much is recorded)."""
