"""Reliability campaigns: scripts that write `results/*.json`, and the page made from them."""
