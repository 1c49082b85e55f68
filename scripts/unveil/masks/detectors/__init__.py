"""Cloud detectors: one file a detector, all under one contract."""
