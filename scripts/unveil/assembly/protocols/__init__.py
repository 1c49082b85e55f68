"""How a target and its truth come about: one file per protocol, all under one contract."""
