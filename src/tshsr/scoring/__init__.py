"""Scores of all pairs or of candidate pairs, within a byte budget."""
