"""Data: readers of its layouts, the feature store, captions, batches and the built-in scenes; no networks."""
