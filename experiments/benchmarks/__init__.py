"""How fast members train, act, are evaluated and learn online."""
