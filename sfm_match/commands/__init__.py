"""What the commands do that are no stages of a job."""
