"""`make service`: adds it, and says what was done and what comes next."""

from rich.console import Console

from ..project import NEXT_STEP, ROOT
from .plan import Options, Plan, plan


def run(console: Console, options: Options) -> None:
    """Add a service.

    Raises:
        UserError: It cannot be; nothing was written.
    """
    made = plan(options)
    made.write()
    for line in _said(made):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _said(made: Plan) -> list[str]:
    service = made.service
    consumes, publishes = service.consumes, service.publishes
    tells = f" and publishes {publishes.topic} ({publishes.contract})" if publishes else ""
    many = ", many at a time" if service.batch else ""
    handlers, test = (str(path.relative_to(ROOT)) for path in made.new)
    settings = [f"service.settings.{service.field(name)}" for name in service.settings]
    return [
        f"{service.name} consumes {consumes.topic} ({consumes.contract}){many}{tells}.",
        *([f"Its settings: {', '.join(settings)}."] if settings else []),
        *made.notes,
        "",
        *(f"  new      {path.relative_to(ROOT)}" for path in made.new),
        *(f"  changed  {path.relative_to(ROOT)}" for path in made.changed),
        "",
        f"Next: write what it does in {handlers}, what proves it in {test}, and run",
        "",
        f"  make test ARGS={test}",
        "  make up    # or, without Docker, make dev: anew if it runs",
        "",
        NEXT_STEP,
    ]
