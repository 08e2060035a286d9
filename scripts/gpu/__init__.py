"""What `scripts/gpu_check.py` runs: each part and engine in a process of its own, each result a row that is saved."""
