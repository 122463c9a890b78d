"""The synchronous client, which runs an event loop in a thread."""
