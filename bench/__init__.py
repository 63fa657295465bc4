"""What telemetry costs: `make bench`. docs/cost.md says what is measured, and how.

- `measured/`: what runs in a measured process, one service with a few hops;
- `variants.py`: the services that are compared; `run.py` runs one of them once;
- `parts/`: what is measured, each part by itself;
- `figures.py`, `chart.py`, `page.py`: the numbers, the chart, and the pages that show them.
"""
