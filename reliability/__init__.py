"""Campaigns that try to break the package: faults, kills, load, and mutated inputs."""
