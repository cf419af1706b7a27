"""Does the model still work? Perplexity and accuracy, digital and over a population of simulated chips."""

from cimphony.evaluate.data import calibration_windows, load_text, token_name
from cimphony.evaluate.metrics import accuracy, perplexity
from cimphony.evaluate.models import load_model
from cimphony.evaluate.population import evaluate_chips
from cimphony.evaluate.sensitivities import sensitivity
from cimphony.evaluate.statistics import bootstrap_interval, describe, enough, good_share
from cimphony.nn.architectures import load_config, model_names

__all__ = [
    "accuracy",
    "bootstrap_interval",
    "calibration_windows",
    "describe",
    "enough",
    "evaluate_chips",
    "good_share",
    "load_config",
    "load_model",
    "load_text",
    "model_names",
    "perplexity",
    "sensitivity",
    "token_name",
]
