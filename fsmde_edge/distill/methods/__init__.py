"""The distillation method and what it is compared with, one file each."""
