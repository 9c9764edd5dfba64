"""Settings of a run as frozen dataclasses, and recipes."""
