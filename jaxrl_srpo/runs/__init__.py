"""From a sweep to finished results: run directory, training, evaluation, workers."""
