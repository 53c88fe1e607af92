"""Evaluations: the paper's protocols over sharp images, benchmarks of blurred pictures, and photographs."""

from .cases import EvaluationSettings, Method, Task
from .loop import Evaluation, run_evaluation
from .pictures import PictureEvaluation, PictureSettings, PictureTask, evaluate_pictures

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "Method",
    "PictureEvaluation",
    "PictureSettings",
    "PictureTask",
    "Task",
    "evaluate_pictures",
    "run_evaluation",
]
