"""One module a drill, named as its row in `promises`: its docstring says the fault.

They share one stack: each leaves it as it was.
"""
