"""Conversations: turns, each sent with those before it."""
