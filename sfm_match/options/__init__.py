"""The options of every stage, documented and checked."""
