"""Fleets: several endpoints as one."""
