"""Single tasks of OGBench: many tasks, seeds and methods as one sweep, beside the published scores."""
