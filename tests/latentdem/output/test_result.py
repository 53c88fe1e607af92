from __future__ import annotations

import pytest
import torch

from latentdem.operators.kernels import delta_kernel, gaussian_kernel
from latentdem.output.report import build_report
from latentdem.output.result import Result


def result(unexplained: list[float] | None, blurred: float = 0.5, **settings: object) -> Result:
    n = 2
    shares = None if unexplained is None else torch.tensor(unexplained)
    return Result(
        torch.zeros(n, 1, 10, 10),
        gaussian_kernel(5, 1.0).repeat(n, 1, 1, 1),
        torch.full((n, 1, 10, 10), blurred),
        torch.tensor([0.01, 0.01]),
        torch.tensor([0.019, 0.021]),
        settings=dict(settings),
        model_error=torch.tensor([0.01, 0.03]),
        unexplained=shares,
    )


def test_explained_depends_on_the_residual_only_where_the_kernel_was_not_tried() -> None:
    assert result(None).explained.tolist() == [True, False]
    assert result([0.31, 0.29]).explained.tolist() == [False, True]
    assert result([float("nan"), 0.0]).explained.tolist() == [False, True]


def test_a_kernel_much_better_than_its_turned_copy_is_right_whatever_is_left() -> None:
    found = result([0.5, 0.5])
    found.lead = torch.tensor([0.03, 0.01])
    assert found.explained.tolist() == [True, False]
    found.residual[0] = 0.2  # the prior makes nothing of it
    assert found.explained.tolist() == [False, False]


def test_a_kernel_that_is_only_a_part_of_the_blur_explains_nothing() -> None:
    found = result([0.0, 0.0])
    found.coverage, found.lead = torch.tensor([0.6, 0.8]), torch.tensor([0.03, 0.0])
    assert found.explained.tolist() == [False, True]
    assert found[1].coverage.tolist() == pytest.approx([0.8])


def test_a_kernel_wider_than_the_blur_must_be_better_than_its_turned_copy() -> None:
    found = result([0.0, 0.0])
    found.coverage, found.lead = torch.tensor([1.5, 1.5]), torch.tensor([0.03, 0.01])
    assert found.explained.tolist() == [True, False]
    found.coverage = torch.tensor([1.3, 1.3])
    assert found.explained.tolist() == [True, True]


def test_only_images_that_no_estimated_kernel_explains_are_replaced_by_the_input() -> None:
    found = result([0.0, 0.5])
    found.uncertainty = torch.ones(2, 1, 10, 10)
    kept = found.or_input()
    assert kept.uncertainty is None
    assert torch.equal(kept.image[0], found.image[0])
    assert torch.equal(kept.kernel[0], found.kernel[0])
    assert torch.equal(kept.image[1], found.blurred[1])
    assert torch.equal(kept.kernel[1:], delta_kernel(5))
    assert kept.explained.tolist() == [True, False]
    assert result([0.0, 0.0]).or_input().image.eq(0).all()


def test_known_kernel_is_never_refused() -> None:
    known = result(None, kernel_known=True)
    assert known.or_input() is known


def test_one_result_of_a_batch_keeps_its_own_measures_and_reports_them() -> None:
    report = build_report(result([0.0, 0.5])[1])
    assert (report["noise_sigma"], report["model_error"], report["unexplained"]) == (0.01, 0.03, 0.5)
    assert report["explained"] is False
    assert build_report(result(None)[0])["unexplained"] is None
