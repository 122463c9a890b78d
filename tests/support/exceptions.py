"""Exceptions of the caller's own code."""

from __future__ import annotations


class BoomError(Exception):
    """An exception that only the caller's own code raises."""
