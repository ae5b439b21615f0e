"""SRPO on two-dimensional bandits, whose policies can be looked at."""
