"""How a target and its truth come about: one file a protocol, all under one contract."""
