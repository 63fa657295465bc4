"""Event-driven services: each is a module in `services`."""
