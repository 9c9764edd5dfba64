"""Word-region attribution, and tests of it: deletion curves, pointing game, binding, faithfulness."""
