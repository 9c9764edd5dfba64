"""From networks or score matrices to a report: protocols, ensembles, two-stage retrieval."""
