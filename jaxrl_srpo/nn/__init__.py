"""Networks, diffusion, optimizers, precision."""
