"""Worker processes: of this host, or of a Ray cluster."""
