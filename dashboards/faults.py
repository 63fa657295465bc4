"""Queries that rightly answer nothing, or only zeros, as long as nothing goes wrong."""

NEEDS_FAULT = {
    ("messaging", "In process", "B"): "a handler that hangs",
    ("messaging", "Retries", "A"): "a message whose first attempt fails",
    ("messaging", "Dead letters", "A"): "a message that fails for good",
    ("messaging", "Errors, by type", "A"): "a message that fails for good",
    ("topology", "Who consumes", "B"): "a message that fails for good",
    ("service", "Errors", "A"): "a message that fails for good",
    ("service", "Handlers", "D"): "a message that fails for good",
    ("traces", "Errors", "A"): "a message that fails for good",
    ("telemetry", "Lost within ten minutes", "A"): "a queue that is full",
    ("telemetry", "Collector: refused", "A"): "a queue that is full",
    ("telemetry", "Collector: queue fill", "A"): "a store that is away",
    ("slo", "Bad flows, by where they ended", "A"): "a message that fails for good",
    ("slo", "Bad flows, by where they ended", "B"): "a flow that takes more than five seconds",
    ("slo", "Alerts", "A"): "an alert that fires",
}
"""By uid of the board, title of the panel and refId of the query: the fault that fills it."""

WHOLE_UNTIL_FAULT = {("telemetry", "Telemetry is", "A")}
"""Queries that answer above zero only as long as nothing goes wrong."""
