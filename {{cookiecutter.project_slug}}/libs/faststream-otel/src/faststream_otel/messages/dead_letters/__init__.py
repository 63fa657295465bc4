"""Messages that no attempt could handle: where they are kept, and the way back."""

DEAD_LETTERS = "dead-letters"
"""The channel of dead letters."""
