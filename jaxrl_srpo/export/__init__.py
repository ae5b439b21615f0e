"""Policies as files that act without the run directory, and most of them without JAX."""
