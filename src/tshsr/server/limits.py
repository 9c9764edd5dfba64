"""How much a server takes on, so that no visitor can keep it from the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what is asked of a server.

    Attributes:
        upload_bytes: The largest body of a request.
        pixels: The largest picture, told by its header before it is decoded.
        query_characters: The longest sentence or filter.
        results: The most results of one question.
        waiting: Questions that may wait for the network; more are refused at once.
        seconds: How long a question may take, and a body to arrive.
    """

    upload_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    query_characters: int = 500
    results: int = 100
    waiting: int = 16
    seconds: float = 20.0
