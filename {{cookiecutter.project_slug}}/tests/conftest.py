"""What all tests share: services that export into memory."""

import os

# Before any service is imported: no test sends telemetry anywhere by accident.
for signal in ("TRACES", "METRICS", "LOGS"):
    os.environ[f"OTEL_{signal}_EXPORTER"] = "none"
os.environ["RETRY_BACKOFF_SECONDS"] = "0.01"
for name in [name for name in os.environ if name.startswith("BROKER_")]:
    del os.environ[name]
