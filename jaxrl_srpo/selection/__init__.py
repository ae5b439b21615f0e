"""From the policies of a run to the one in use."""
