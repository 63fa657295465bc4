"""Handlers one by one, the trace of their flow, and one run of the whole."""
