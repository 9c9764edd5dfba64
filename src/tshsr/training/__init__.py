"""Losses, negatives, the training loop over accelerate, checkpoints and bit-exact resume."""
