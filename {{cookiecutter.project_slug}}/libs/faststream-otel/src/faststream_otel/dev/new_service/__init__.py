"""`make service`: adds a service to the project, with its container, its test and its settings.

It reads and edits what is there as text, so that comments stay; nothing is written before all is
checked.
"""
