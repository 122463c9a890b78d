"""Requests to endpoints, from an endpoint's address to the stream of a reply."""
