"""Figures of score matrices and what they can be trusted for; nothing here knows a model, a file format or a device.

From the bottom: ranks of queries (`metrics`, `rankings`, `ranks`), other annotation (`denser`, `judgements`), comparing
runs (`figures`, `resampling`, `power`, `significance`, `comparison_report`), and old logs (`audit`). Every formula is
in docs/metrics.md.
"""
