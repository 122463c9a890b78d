"""Fan-out: many prompts at once, from their source to one channel of results."""
