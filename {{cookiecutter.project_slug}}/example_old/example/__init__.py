"""What the tools know of the example: its orders, a load of them, and the demo.

docs/removing-the-example.md says how to take it out.
"""
