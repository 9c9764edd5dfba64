"""Strictness of settings."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of dataclasses that are read from files: an unknown name is an error, and so is an infinite number or one that is none."""
