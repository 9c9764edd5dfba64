"""Speed of scoring on this machine, against a plain reference in the same process."""
