"""What makes the documentation's pictures and pages; see `docs.make`."""
