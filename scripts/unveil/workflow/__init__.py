"""How jobs run the stages: identity, archives of a store, resources."""
