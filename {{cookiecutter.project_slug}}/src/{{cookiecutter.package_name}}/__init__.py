"""Event-driven services: orders, payments, shipping and notifications."""
