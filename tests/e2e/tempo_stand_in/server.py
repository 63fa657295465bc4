#!/opt/venv/bin/python
"""Tempo's program, over the library's own OTLP receiver.

With `-health` it asks a running one for its health; with any other arguments it is one.
"""

import signal
import sys
import urllib.request

from faststream_otel.dev.receiver import OtlpReceiver

if "-health" in sys.argv:
    urllib.request.urlopen("http://127.0.0.1:3200/ready", timeout=2)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with OtlpReceiver("0.0.0.0", 4317, 4318, 3200):
        signal.pause()
