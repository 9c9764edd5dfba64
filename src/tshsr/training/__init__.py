"""Training: `fit` turns a recipe and two splits into a run's folder, and tells what happens through events."""

from tshsr.training.events import Evaluated, Event, Saved, Scoring, StepDone, Warned
from tshsr.training.fit import FitResult, fit
from tshsr.training.settings import check_training

__all__ = ["Evaluated", "Event", "FitResult", "Saved", "Scoring", "StepDone", "Warned", "check_training", "fit"]
