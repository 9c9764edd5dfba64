"""Bulk work in shards, on this machine or on a cluster."""
