"""Environments: the embedded mazes, and Gymnasium's by their specs."""
