"""What a baked project takes as it grows: `make scale`. docs/scaling.md says what is measured.

- `meters.py`: what the containers, their volumes and the stores say of themselves;
- `site.py`: the stack that is measured, and orders for it;
- `cost.py`, `drains.py`: what is measured;
- `model.py`: what a rate of orders needs, by these figures. It measures nothing;
- `page.py`: the tables and the charts of the page.
"""
