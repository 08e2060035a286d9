"""What every job is made of: its folder, its progress, its workers."""
