"""Latency that can be believed: the whole pipeline at fixed rates, its drift, and two machines compared."""
