"""Pictures -> region features: extractors, and the extraction of a folder into a feature store."""
