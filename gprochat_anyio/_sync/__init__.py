"""The client for callers without async, on an event loop in a thread."""
