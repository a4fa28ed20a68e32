"""Sessions: images in, metric depth out, one class a backend."""
