"""The default project in a real Kubernetes cluster."""
