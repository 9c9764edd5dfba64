"""Packages and modules whose shape annotations are checked while the tests run."""

CHECKED = (
    "tshsr.models",
    "tshsr.explain.attribution",
    "tshsr.explain.binding",
    "tshsr.explain.pointing_game",
    "tshsr.pretrained.text",
    "tshsr.training.hard_captions",
    "tshsr.training.losses",
    "tshsr.training.negatives",
    "tshsr.training.objective",
)
