#!/opt/venv/bin/python
"""Tempo's program, over the project's own sink.

With `-health` it asks a running one for its health; with any other arguments it is one.
"""

import sys
import urllib.request

from devtools.__main__ import main

if "-health" in sys.argv:
    urllib.request.urlopen("http://127.0.0.1:3200/ready", timeout=2)
else:
    sys.exit(main(["sink", "--host", "0.0.0.0", "--quiet"]))
