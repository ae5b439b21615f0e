"""The published table of SRPO on D4RL, and what each part of its regularizer gives."""
