"""Queries that rightly answer nothing, or only zeros, as long as nothing goes wrong."""

NEEDS_FAULT = {
    ("faststream-messaging", "In process", "B"): "a handler that hangs",
    ("faststream-messaging", "Retries", "A"): "a message whose first attempt fails",
    ("faststream-messaging", "Dead letters", "A"): "a message that fails for good",
    ("faststream-messaging", "Errors, by type", "A"): "a message that fails for good",
    ("faststream-topology", "Who consumes", "B"): "a message that fails for good",
    ("faststream-service", "Errors", "A"): "a message that fails for good",
    ("faststream-service", "Handlers", "D"): "a message that fails for good",
    ("faststream-traces", "Errors", "A"): "a message that fails for good",
    ("faststream-telemetry", "Lost within ten minutes", "A"): "a queue that is full",
    ("faststream-telemetry", "Collector: refused", "A"): "a queue that is full",
    ("faststream-telemetry", "Collector: queue fill", "A"): "a store that is away",
    ("faststream-slo", "Bad flows, by where they ended", "A"): "a message that fails for good",
    (
        "faststream-slo",
        "Bad flows, by where they ended",
        "B",
    ): "a flow that takes more than five seconds",
    ("faststream-slo", "Bad flows, by where they ended", "C"): "a broker that is away",
    ("faststream-service", "HTTP: errors", "A"): "a broker that is away",
    ("faststream-slo", "Alerts", "A"): "an alert that fires",
    ("faststream-service", "Instances and restarts", "B"): "a service that restarts",
    ("faststream-telemetry", "Restarts of the stack", "A"): "a store that restarts",
}
"""By uid of the board, title of the panel and refId of the query: the fault that fills it."""

NEEDS_MORE = {
    ("faststream-messaging", "Copies missing", "A"): "a cluster that lost a node",
    ("faststream-slo", "Rate of flows, against the usual", "B"): "a week of history",
    (
        "faststream-telemetry",
        "Alerting: failures within ten minutes",
        "A",
    ): "a rule that cannot be evaluated",
    (
        "faststream-telemetry",
        "Alerting: failures within ten minutes",
        "B",
    ): "an Alertmanager that is away",
}
"""Likewise, but the stack that the tests run never has it: their answers are not tested there."""

WHOLE_UNTIL_FAULT = {("faststream-telemetry", "Telemetry is", "A")}
"""Queries that answer above zero only as long as nothing goes wrong."""
