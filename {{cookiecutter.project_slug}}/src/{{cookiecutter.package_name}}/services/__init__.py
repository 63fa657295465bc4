"""One module per service, with its handlers."""
