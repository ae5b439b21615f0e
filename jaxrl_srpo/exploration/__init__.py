"""State marginal matching, its baselines, and making datasets."""
