"""What faults lose: `make drills`.

Each module in `faults/` is one drill: a fault, under load, in the baked project for real. What was
lost is found by comparing ids: of the orders that were acknowledged, of the records in the topics
and of the spans in the trace store. No counter of a process under test is asked.
"""
