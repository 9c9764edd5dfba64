"""The networks, box for box the figure in docs/model.md: encoders, attention, similarities, reasoning, streams."""
