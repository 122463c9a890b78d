"""Conversations, whose turns are sent with the turns before them."""
