"""Settings that may differ between environments: the library's and your own."""

from .broker import BrokerSettings


class Settings(BrokerSettings):
    """Each field is read from the environment variable of its name in capitals."""
