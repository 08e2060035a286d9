"""The photographs: which there are, what their headers tell, their pixels and their coordinates."""
