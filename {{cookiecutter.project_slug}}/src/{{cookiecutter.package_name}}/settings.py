"""What may differ between environments: the broker's and the services' variables, and your own."""

from .broker import BrokerSettings


class Settings(BrokerSettings):
    """Each field is an environment variable of the same name, in capitals."""
