"""Sources of imagery: one file a source, all under one contract."""
