"""The APIs' wire formats, without I/O: one module per API, and the parts that the APIs share."""
