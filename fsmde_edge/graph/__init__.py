"""ONNX graphs as the house keeps them: reading, tidying, naming, and what kinds of node there are."""
