"""One file per method. Each has a static `Config`, a swept `Hyper`, a `State`, and pure `init` and `update`."""
