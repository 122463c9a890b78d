"""The meaning of the bytes, without I/O: one module per API, and what the APIs share."""
