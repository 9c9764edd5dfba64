"""Benchmarks: scripts that write `results/*.json`, and the README tables made from them."""
