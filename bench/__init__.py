"""What telemetry costs: `make bench`."""
