"""An engine on the device, and the device's own verdict on it."""
