"""`python -m devtools sink`: the receiver alone, for whatever sends OTLP."""

import sys
import threading
import time

from .query import QueryServer
from .sink import OtlpSink


def run(host: str, grpc_port: int, http_port: int, query_port: int, *, quiet: bool) -> None:
    """Receive until interrupted, printing traces as they complete unless `quiet`.

    Quiet it needs nothing beyond what the sink itself needs.
    """
    with OtlpSink(host, grpc_port, http_port) as sink:
        query = QueryServer(sink, host, query_port)
        query.start()
        try:
            print(f"OTLP/gRPC  {sink.grpc_endpoint}")
            print(f"OTLP/HTTP  {sink.http_endpoint}")
            print(f"traces     {query.endpoint}/api/v2/traces/<id>", flush=True)
            if quiet:
                threading.Event().wait()
            _show_traces(sink)
        finally:
            query.stop()


def _show_traces(sink: OtlpSink) -> None:
    try:
        from rich.console import Console

        from .live import LiveTraces
    except ImportError:
        sys.exit("Showing traces takes the package `rich`: install it, or run with --quiet.")
    traces = LiveTraces(sink, Console())
    while True:
        traces.show()
        time.sleep(0.2)
