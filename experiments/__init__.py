"""One file per published result: what to run, and the figure or table that it must give."""
