"""Moved into the testing kit; for whoever imports it from here still."""

from gprochat_anyio.testing._injection import Injection, Moment, cancelled, injections

__all__ = ["Injection", "Moment", "cancelled", "injections"]
