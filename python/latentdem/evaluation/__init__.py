"""The paper's protocols over a folder of sharp images: blur, restore, compare."""

from .cases import EvaluationSettings, Method, Task
from .loop import Evaluation, evaluate

__all__ = ["Evaluation", "EvaluationSettings", "Method", "Task", "evaluate"]
