"""Strictness of settings."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of dataclasses that are read from files: unknown names and numbers that are not finite are errors."""
