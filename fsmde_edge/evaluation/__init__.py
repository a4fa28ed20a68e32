"""Depth metrics, published protocols, cross-view consistency, the gate, latency, reports."""
