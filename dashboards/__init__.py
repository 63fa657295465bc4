"""The dashboards as code: `make dashboards` writes the JSON that a baked project carries.

The tests of the running stack read `metrics.METRICS` and `faults`.
"""
