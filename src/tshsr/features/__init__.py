"""Picture files in, region features out: extractors, and the job that makes a feature store of a folder."""
