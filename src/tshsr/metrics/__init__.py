"""Retrieval metrics of score matrices, and comparisons with confidence intervals; independent of torch and of models.

From low to high level: ranks of queries (`recall`, `multi_positive`, `ranks`), other annotation (`coco`, `human`),
comparison of runs (`bootstrap`, `comparison`, `comparison_tables`), reports (`report`, `labels`), other programs' logs
(`scan_logs`).
docs/metrics.md has every formula.
"""
