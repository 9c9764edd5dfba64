"""Evaluation of networks and of score matrices: protocols, ensembles, two-stage retrieval."""
