"""Two-stream hierarchical similarity reasoning for image-text matching."""
