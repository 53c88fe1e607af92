"""The paper's protocols over a folder of sharp images: blur, restore, compare with the original."""

from .cases import EvaluationSettings, Method, Task
from .loop import Evaluation, run_evaluation

__all__ = ["Evaluation", "EvaluationSettings", "Method", "Task", "run_evaluation"]
