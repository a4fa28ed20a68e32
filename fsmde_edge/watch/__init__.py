"""Watching a run while it goes: a guard over every view, a state for monitoring, systemd, accuracy."""
