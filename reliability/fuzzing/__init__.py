"""Mutated inputs for every reader: mutations, valid seeds, a sandbox, and the readers."""
