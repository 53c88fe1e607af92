"""One operator after another."""

from __future__ import annotations

from torch import Tensor

from ..errors import UserError
from .parametric import Parametric


class Composition(Parametric):
    """outer(inner(x)), with the parameters of both.

    What of the measurement counts is for `outer` to say.

    Raises:
        UserError: both have a parameter of the same name.
    """

    def __init__(self, outer: Parametric, inner: Parametric) -> None:
        self.outer, self.inner = outer, inner
        same = outer.parameters.keys() & inner.parameters.keys()
        if same:
            raise UserError(
                f"Both operators have a parameter {', '.join(sorted(same))}; write a Function with other names."
            )
        self.parameters = {**outer.parameters, **inner.parameters}
        self.linear = outer.linear and inner.linear

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        within = self.inner.apply(x, **{name: values[name] for name in self.inner.parameters})
        return self.outer.apply(within, **{name: values[name] for name in self.outer.parameters})

    def image_size(self, y: Tensor) -> tuple[int, int]:
        return self.inner.image_size(y.new_empty(1, 1, *self.outer.image_size(y)))

    def measured(self, y: Tensor) -> Tensor | None:
        return self.outer.measured(y)
