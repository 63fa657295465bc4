"""Dead letters, messages that no attempt could handle: sends, stores, searches and replays them."""

DEAD_LETTERS = "dead-letters"
"""The channel of dead letters."""
