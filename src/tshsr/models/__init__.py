"""The networks, the figure of docs/model.md box for box: encoders, attention, similarity vectors, reasoning, streams."""
