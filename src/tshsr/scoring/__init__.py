"""Exact scores of all pairs or of candidates, within a byte budget: one loop for every network."""
