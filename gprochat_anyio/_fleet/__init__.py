"""Several endpoints as one."""
