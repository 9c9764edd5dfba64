"""Settings: every field of a run as frozen dataclasses, and the recipes that fill them in."""
