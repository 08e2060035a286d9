"""Results on disk: immutable files, each written whole under a temporary name and then renamed."""
