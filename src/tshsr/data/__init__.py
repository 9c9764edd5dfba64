"""Files in, batches out: readers, the feature store, tokens and the built-in scenes; knows no network."""
