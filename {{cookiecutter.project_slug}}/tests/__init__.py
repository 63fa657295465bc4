"""Tests of each handler, of an order's trace, and of all services as processes."""
