"""Strictness of settings."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid")
"""Of dataclasses that are read from files: an unknown name is an error."""
