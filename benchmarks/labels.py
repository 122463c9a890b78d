"""Labels of peers in the picture and in the documentation's table."""

from __future__ import annotations


def label(peer: str, loop: str) -> str:
    """Return the label of a peer on an event loop, such as `ask, trio` for `ours-ask`."""
    return f"{peer.removeprefix('ours-')}, {loop}"
