"""DDAD (DGP layout), nuScenes and synthetic streets: each yields `frames.Sample`."""
