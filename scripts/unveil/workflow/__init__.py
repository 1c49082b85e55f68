"""How jobs run the stages: identity of results, logs, memory and time, archives, the manifest."""
