"""What faults lose: `make drills`.

Each module in `faults/` is one drill: a fault, under load, in the running baked project. Losses are
found by comparing ids: of acknowledged orders, of records in the channels and of spans in the trace
store. Counters of the tested processes are not used.
"""
