"""Concept graphs from captions: concepts, their edges, their vectors, files and pictures."""
