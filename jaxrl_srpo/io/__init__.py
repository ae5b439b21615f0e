"""Checkpoints, files and CSV logs."""
