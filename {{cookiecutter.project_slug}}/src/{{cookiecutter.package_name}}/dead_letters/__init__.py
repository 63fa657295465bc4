"""What services gave up: how it is kept, listed, and sent back."""
