"""The channels that the services talk over."""

ORDERS = "orders.placed"
PAYMENTS = "payments.authorized"
DECLINES = "payments.declined"
SHIPMENTS = "shipments.dispatched"

CHANNELS = (ORDERS, PAYMENTS, DECLINES, SHIPMENTS)
"""`faststream-otel channels` creates these, and the channel of the dead letters."""
