"""The same as with Compose: messages that nobody consumes are counted."""

from e2e.test_lag import (
    test_every_channel_has_a_group,
    test_lag_is_counted_while_the_service_is_down_and_gone_when_it_is_back,
    test_the_exporter_reaches_the_broker,
)

__all__ = (
    "test_every_channel_has_a_group",
    "test_lag_is_counted_while_the_service_is_down_and_gone_when_it_is_back",
    "test_the_exporter_reaches_the_broker",
)
