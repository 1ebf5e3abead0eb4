"""What every stage shares: files, records, configuration, devices, progress and errors."""
