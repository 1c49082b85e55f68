"""Cloud detectors: one file per detector, all under one contract."""
