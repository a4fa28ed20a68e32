"""From checkpoint to a quantised graph: export, simplify, calibrate, plan, lower."""
