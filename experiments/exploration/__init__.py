"""Exploration without reward: state marginal matching beside other ways, and what is learned from it."""
