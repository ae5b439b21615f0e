"""Many members trained by one compiled program."""
