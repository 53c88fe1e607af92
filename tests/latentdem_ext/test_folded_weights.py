from __future__ import annotations

import gc
import threading

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext._folded_weights import fold, folded


@pytest.fixture
def weight() -> torch.nn.Parameter:
    return frozen(torch.randn(4, 3, 3, 3))


def frozen(value: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(value, requires_grad=False)


def test_fold_adds_up_the_taps_that_meet(weight):
    flat = weight.detach()
    along = [flat[..., 2], flat[..., 1] + flat[..., 2], flat[..., 0] + flat[..., 1], flat[..., 0]]
    rows = torch.stack(along, -1)
    expected = torch.stack(
        [rows[:, :, 2], rows[:, :, 1] + rows[:, :, 2], rows[:, :, 0] + rows[:, :, 1], rows[:, :, 0]], 2
    )
    actual = fold(flat, torch.float32)
    torch.testing.assert_close(actual, expected.transpose(0, 1))
    assert actual.is_contiguous(memory_format=torch.channels_last)


def test_fold_of_half_precision_is_rounded_once(weight):
    half = weight.detach().half()
    assert torch.equal(fold(half, torch.float16), fold(half.double(), torch.float64).half())


def test_an_unchanged_weight_is_folded_once(weight):
    first = folded(weight, torch.float32)
    assert folded(weight, torch.float32) is first
    assert folded(frozen(weight.clone()), torch.float32) is not first


def test_float32_weights_are_kept_for_every_type(weight):
    half = folded(weight, torch.bfloat16)
    single = folded(weight, torch.float32)
    assert torch.equal(half, fold(weight.detach(), torch.float32).bfloat16())
    assert folded(weight, torch.bfloat16) is half
    assert folded(weight, torch.float32) is single


def test_operation_and_its_gradient_share_the_folded_weight(weight, monkeypatch):
    calls = []
    monkeypatch.setattr(folded, "_compute", lambda *given: calls.append(1) or fold(*given))
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    for _ in range(3):
        ext.upsample_conv(x, weight).sum().backward()
    with torch.inference_mode():
        ext.upsample_conv(x, weight)
    assert len(calls) == 1


def in_place(weight):
    with torch.no_grad():
        weight.mul_(2)


def in_place_in_inference_mode(weight):
    with torch.inference_mode():
        weight.add_(1)


def by_loading(weight):
    layer = torch.nn.Conv2d(3, 4, 3, bias=False)
    state = layer.state_dict()
    layer.weight = weight
    layer.load_state_dict(state)


def new_memory(weight):
    weight.data = weight.data + 1


def other_layout(weight):
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("change", [in_place, in_place_in_inference_mode, by_loading, new_memory, other_layout])
def test_a_changed_weight_is_folded_again(weight, change):
    for _ in range(3):
        folded(weight, torch.float32)
        change(weight)
        assert torch.equal(folded(weight, torch.float32), fold(weight.detach(), torch.float32))


def test_a_changed_weight_is_folded_at_the_same_address(weight):
    address = folded(weight, torch.float32).data_ptr()
    in_place(weight)
    assert folded(weight, torch.float32).data_ptr() == address


def test_an_entry_goes_with_its_weight(weight):
    gc.collect()  # of the tests before
    before = len(folded._entries)
    weights = [frozen(weight.clone()) for _ in range(5)]
    for each in weights:
        folded(each, torch.float32)
    assert len(folded._entries) == before + 5
    del each, weights
    gc.collect()
    assert len(folded._entries) == before


def test_folding_first_in_inference_mode_leaves_an_ordinary_tensor(weight):
    with torch.inference_mode():
        assert not folded(weight, torch.float32).is_inference()
    in_place(weight)
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    ext.upsample_conv(x, weight).sum().backward()
    assert x.grad is not None


def test_a_weight_without_a_version_is_not_kept():
    with torch.inference_mode():
        weight = torch.randn(4, 3, 3, 3)
        first = folded(weight, torch.float32)
        weight.mul_(2)
        assert torch.equal(folded(weight, torch.float32), 2 * first)
    assert weight not in folded._entries


def test_a_weight_that_is_trained_is_not_kept(weight):
    weight.requires_grad_()
    for _ in range(2):
        assert torch.equal(folded(weight, torch.float32), fold(weight.detach(), torch.float32))
        weight.data.mul_(2)  # not seen by the version counter
    assert weight not in folded._entries


def test_changing_the_weight_between_forward_and_backward_is_an_error(weight):
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    y = ext.upsample_conv(x, weight)
    in_place(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_threads_share_one_folded_weight(weight):
    actual = []
    threads = [threading.Thread(target=lambda: actual.append(folded(weight, torch.float32))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(actual) == 8
    assert all(each is actual[0] for each in actual)


@pytest.mark.gpu
def test_streams_have_their_own_and_recording_keeps_nothing(weight):
    weight = weight.detach().cuda()
    first = folded(weight, torch.float32)
    with torch.cuda.stream(torch.cuda.Stream()):
        second = folded(weight, torch.float32)
        torch.cuda.current_stream().synchronize()
    assert second is not first
    assert torch.equal(first, second)
    fresh = weight.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = folded(fresh, torch.float32)
    assert fresh not in folded._entries
    graph.replay()
    assert torch.equal(recorded, first)
