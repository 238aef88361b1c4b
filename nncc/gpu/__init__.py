"""Kernels for GPUs: what templates say of them, their tiles, and the loops of what has no template."""
