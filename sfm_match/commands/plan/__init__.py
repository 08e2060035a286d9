"""`plan`: what `run` would do, before it does it."""
