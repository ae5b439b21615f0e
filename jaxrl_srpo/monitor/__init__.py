"""Watching a run: the terminal, TensorBoard, Weights & Biases."""
