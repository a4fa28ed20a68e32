"""One precision plan, written the way that each backend wants it."""
