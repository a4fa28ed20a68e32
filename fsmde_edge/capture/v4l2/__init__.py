"""V4L2 cameras: the kernel's structures, functions on a file descriptor, owners of lifetimes."""
