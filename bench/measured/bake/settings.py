"""The settings of the plan's broker, with the library's defaults, as in what is baked."""

from importlib import import_module
from typing import Any

from ..brokers import BROKERS
from ..plan import Plan


def settings_class(broker: str) -> Any:
    kind = BROKERS[broker]
    return getattr(import_module(f"faststream_otel.{kind.library}"), f"{kind.prefix}Settings")


Settings = settings_class(Plan.read().broker)
