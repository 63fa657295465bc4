"""The channels between the services."""

ORDERS = "orders.placed"
PAYMENTS = "payments.authorized"
DECLINES = "payments.declined"
SHIPMENTS = "shipments.dispatched"

CHANNELS = (ORDERS, PAYMENTS, DECLINES, SHIPMENTS)
"""`faststream-otel channels` creates these, and the dead-letter channel."""
