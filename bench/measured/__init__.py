"""What runs in a measured process. Nothing here imports more than a service would."""
