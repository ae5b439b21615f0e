"""Which score, and how many episodes, find the best policy of a population."""
