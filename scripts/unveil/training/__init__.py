"""Training of networks on clear real imagery under simulated clouds."""
