"""One request to one endpoint, from its address to the stream of its reply."""
