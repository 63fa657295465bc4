"""Write every board to where baking takes it from; a board that is no longer built goes."""

from pathlib import Path

from .build import FOLDERS, files

TEMPLATE = Path(__file__).parents[1]

built = files()
for folder in FOLDERS:
    for path in (TEMPLATE / folder).glob("*.json"):
        if path.relative_to(TEMPLATE) not in built:
            path.unlink()
for name, text in built.items():
    (TEMPLATE / name).parent.mkdir(parents=True, exist_ok=True)
    (TEMPLATE / name).write_text(text, "utf-8")
    print(name)
