"""How fast this machine scores pairs: ours against the plain reference, in one process and one run."""
