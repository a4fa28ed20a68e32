"""CUDA: what compiles kernels, and what they run on."""
