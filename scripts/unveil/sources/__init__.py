"""Sources of imagery: one file per source, all under one contract."""
