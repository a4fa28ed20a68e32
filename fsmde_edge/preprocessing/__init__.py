"""From a driver's buffer to the network's input in one pass: `fsmde_edge.preprocess` within rounding."""
