"""Generated scenes: pictures of coloured shapes with boxes, features, and captions that are true by construction."""
