"""Where depth goes: PNG, npz, mosaic."""
