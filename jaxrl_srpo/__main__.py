"""`python -m jaxrl_srpo`, the same as `jaxrl-srpo`."""

from jaxrl_srpo.cli.main import run

if __name__ == "__main__":
    run()
