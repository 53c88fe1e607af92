"""Pixels that no blurred photograph has: frames, dead and hot pixels, stamps, blown-out lights.

They are found in the photograph alone, before any restoration, and lose their say: y = k * x + n does not hold
there, and at the low noise of a photograph a single such pixel spoils its surroundings. All thresholds are
chosen so that a blurred photograph without such pixels keeps (nearly) all of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .windows import bands, by_rows, dilated, highest, opened, shifted, sums_nearby

_FLAT = 0.02  # of the range: spread within a constant row, with the ringing of JPEG
_ABRUPT = 3.0  # step at a frame, in units of the steps beside it
_SIGMAS = 8.0  # of the noise
_STEP = 0.1  # by which an isolated pixel leaves the range of its neighbours at least
_SPREADS = 2.0  # the same in units of that range
_NOISY = 0.05  # share of isolated pixels above which they are noise
_CONTRAST = 0.4  # least contrast of a stamp
_SHARP = 0.8  # second difference in every direction of a stamp, in units of the local contrast
_ACROSS = 0.35  # the same across a straight stroke, at the pixel itself
_GLINT = 10  # sharp pixels up to which they may be a glint in a nearly sharp picture; a hot pixel makes 25
_GROWTH = 4  # steps of 4 pixels from a sharp corner along a stroke
_STROKES = 100  # sharp pixels from which there are strokes; a hot pixel on an edge makes 25
_BLURRED = 0.55  # the same in a blurred picture; measured on 200 pictures: 0.6 at most, 0.4 on average
_RINGING = 0.02  # by which JPEG moves clipped pixels away from the end
_KINK = 0.03  # least step from a blown-out region to the next pixel
_KINK_RATIO = 0.3  # of that step and the one after it; 1/2 where a slope is cut off, 1/6 for a parabola's foot
_SAMPLE = 2**20  # pixels that suffice for a median
_LINES, _PIXELS = 32, 128  # lines that are looked at together, pixels of a line that are looked at first
_LARGEST = 0.2  # share of the picture up to which a region is blown out or foreign, and no background


def isolated_pixels(y: Tensor) -> Tensor:
    """(H, W) bool, pixels of (C, H, W) that leave the range of their 3 x 3 neighbours far behind.

    One of the neighbours may be as wrong. Where many pixels are isolated, they are noise and do not count.
    """
    least = (_SIGMAS * _noise(y)).clamp_min(_STEP)
    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    isolated = torch.zeros(y.shape[1:], dtype=torch.bool, device=y.device)
    for signed in (y, -y):
        above = [_above(channel, one, around) for channel, one in zip(signed, least, strict=True)]
        channel, row, column = torch.stack(above).nonzero(as_tuple=True)
        height, width = isolated.shape
        beside = torch.stack(
            [
                signed[channel, (row + down).clamp(0, height - 1), (column + right).clamp(0, width - 1)]
                for down, right in around
            ]
        )
        beside = beside.sort(dim=0).values
        spread = _SPREADS * (beside[-2] - beside[1])
        far = signed[channel, row, column] - beside[-2] > spread.maximum(least[channel, 0, 0])
        isolated[row[far], column[far]] = True
    return isolated if isolated.float().mean() <= _NOISY else torch.zeros_like(isolated)


def _above(y: Tensor, least: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    """(H, W) bool, pixels of a channel that are greater by `least` than all neighbours but one."""

    def band(rows: slice) -> Tensor:
        part = y[rows]
        count = torch.zeros_like(part, dtype=torch.uint8)
        for down, right in around:
            count += part > shifted(part, down, right) + least
        return count >= len(around) - 1

    return by_rows(band, len(y), 1)


def constant_lines(y: Tensor) -> Tensor:
    """(H, W) bool, constant rows and columns of (C, H, W) at the edges, and single ones inside.

    Between them and the picture there is a step, which a dark sky, say, does not have.
    """
    tolerance = _FLAT * (y.max() - y.min())
    (top, bottom), (left, right) = (0, y.shape[1]), (0, y.shape[2])
    for _ in range(2):  # rows may be constant only once the columns of a border are taken off
        if min(bottom - top, right - left) < 8:
            break
        rows = y[:, top:bottom, left:right].movedim(1, 0)
        top, bottom = top + _leading(rows, tolerance), bottom - _leading(rows.flip(0), tolerance)
        columns = y[:, top:bottom, left:right].movedim(2, 0)
        left, right = left + _leading(columns, tolerance), right - _leading(columns.flip(0), tolerance)
    lines = torch.ones(y.shape[1:], dtype=torch.bool, device=y.device)
    lines[top:bottom, left:right] = False
    inside = y[:, top:bottom, left:right]
    lines[top:bottom, left:right] |= _single(inside.movedim(1, 0), tolerance)[:, None]
    lines[top:bottom, left:right] |= _single(inside.movedim(2, 0), tolerance)
    return lines


def sharp_pixels(y: Tensor) -> Tensor:
    """(H, W) bool, structures in (C, H, W) that are sharp in every direction, in a picture that is not.

    A blur smooths at least one direction, and the same one everywhere. A stamp that was added afterwards, with
    strokes and corners, is sharp in all of them.
    """
    edges = torch.empty(y.shape[1:], dtype=torch.bool, device=y.device)
    least, at_edges = _CONTRAST + _SIGMAS * float(_noise(y).amax()), []
    for top, part in bands(lambda rows: _bends(y[:, rows]), y.shape[1], 4):
        band = part[0] > least
        edges[top : top + len(band)] = band
        at_edges.append(part[:, band])
    contrast, sharpness, steepness = torch.cat(at_edges, 1)
    sharp, none = torch.zeros_like(edges), torch.zeros_like(edges)
    sharp[edges] = sharpness > _SHARP * contrast
    if sharp.sum() < _GLINT:
        return none
    apart = ~dilated(sharp, 17)[edges]
    if apart.any() and _quantile((sharpness / contrast)[apart], 0.98) > _BLURRED:
        return none
    # Straight strokes are sharp across, and only near corners in every direction.
    own = _quantile(steepness[apart], 0.99) if apart.any() else 0.0
    across, stamp = torch.zeros_like(edges), sharp
    across[edges] = steepness > (_ACROSS * contrast).clamp_min(own)
    for _ in range(_GROWTH if sharp.sum() >= _STROKES else 1):
        stamp = across & dilated(stamp, 9)
    stamp = ~dilated(~dilated(stamp, 5), 3)
    return stamp if stamp.float().mean() <= _LARGEST else none


def _bends(y: Tensor) -> Tensor:
    """(3, H, W) local contrast of (C, H, W), least and greatest second difference of four directions."""
    contrast = torch.stack([highest(channel, 7).add_(highest(-channel, 7)) for channel in y]).amax(0)
    sharpness, steepness = torch.full_like(contrast, torch.inf), torch.zeros_like(contrast)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        bend = torch.zeros_like(contrast)
        for channel in y:
            ahead, behind = shifted(channel, down, right), shifted(channel, -down, -right)
            bend = bend.maximum((ahead - 2 * channel).add_(behind).abs_())
        sharpness = sharpness.minimum(highest(bend, 5))
        steepness = steepness.maximum(bend)
    return torch.stack([contrast, sharpness, steepness])


def blown_out_pixels(y: Tensor) -> Tensor:
    """(H, W) bool, regions of (C, H, W) that are clipped at either end of the data, in any channel.

    Black and white are colours as well: a region counts only if the picture runs into the end of the range at a
    slope, and if it is no background that fills much of the picture.
    """
    clipped = torch.zeros(y.shape[1:], dtype=torch.bool, device=y.device)
    least = _KINK + _SIGMAS / 2 * _noise(y).amax()
    for sign in (1, -1):
        end = y.max() if sign == 1 else -y.min()
        for channel in y:
            signed = sign * channel
            equal = opened(signed >= end - 1e-6)
            if not equal.any():
                continue
            at_end = signed >= end - _RINGING
            region = at_end & dilated(equal, 9)
            if region.float().mean() <= _LARGEST:
                clipped |= region & _kinks(signed, end, at_end, region, least)
    return dilated(clipped, 3) if clipped.any() else clipped


def _kinks(y: Tensor, end: Tensor, at_end: Tensor, region: Tensor, least: Tensor) -> Tensor:
    """(H, W) bool, where the boundary of the clipped region nearby shows a slope that was cut off.

    Args:
        y: (H, W) one channel; end: its greatest possible value.
        at_end: (H, W) bool, where it has about that value; region: those parts of it that are large enough.
        least: step from the region to the next pixel that tells a slope from noise.
    """

    def band(rows: slice) -> Tensor:
        part, inside, outside = y[rows], region[rows], ~at_end[rows]
        if not inside.any():
            return torch.zeros_like(inside)
        first, second, pairs = (torch.zeros_like(part) for _ in range(3))
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            one, two = (shifted(part, n * down, n * right) for n in (1, 2))
            boundary = (inside & shifted(outside, down, right)).float()
            first += boundary * (end - one)
            second += boundary * (one - two)
            pairs += boundary
        first, second, pairs = map(sums_nearby, (first, second, pairs))
        return (pairs > 0.5) & (first > least * pairs) & (first > _KINK_RATIO * second)

    return by_rows(band, len(y), 17)


def _quantile(values: Tensor, share: float) -> float:
    """Quantile of a vector of any length."""
    return float(values.sort().values[int(share * (len(values) - 1))])


def _noise(y: Tensor) -> Tensor:
    """Robust standard deviation (C, 1, 1) of noise in (C, H, W), or a little more (Immerkaer 1996)."""
    every = max(1, y[0].numel() // _SAMPLE)  # rows of a large photograph
    rows = slice(0, y.shape[1] - 2, every)
    first, second, third = (y[:, i:][:, rows] for i in range(3))
    difference = ((third - second) - (second - first)).diff(n=2, dim=2)
    return difference.abs().flatten(1).median(1).values.view(-1, 1, 1) / (6 * 0.6745)


def _leading(lines: Tensor, tolerance: Tensor) -> int:
    """Number of constant, equal lines (N, C, L) before the picture begins."""
    half, count, first = len(lines) // 2, 0, None
    while count < half:  # most pictures begin at once
        part = lines[count : min(count + _LINES, half)]
        centre = part.median(-1, keepdim=True).values
        first = centre[0] if first is None else first
        spread = (part - centre).abs().flatten(1).quantile(0.98, dim=1)
        constant = (spread <= tolerance) & ((centre - first).abs().amax((1, 2)) <= tolerance)
        count += int(constant.int().cumprod(0).sum())
        if not constant.all():
            break
    if count == 0 or count >= half - 3:
        return 0
    # The line after the last constant one may mix frame and picture.
    abrupt = any(
        _rms(lines[count + n - 1] - lines[count - 1])
        > _ABRUPT * _rms(lines[count + 1 + n] - lines[count + 1]) + tolerance
        for n in (1, 2)
    )
    return count if abrupt else 0


def _single(lines: Tensor, tolerance: Tensor) -> Tensor:
    """(N,) bool, constant lines (N, C, L) that differ from both neighbours, which do not differ as much."""
    single = torch.zeros(len(lines), dtype=torch.bool, device=lines.device)
    if len(lines) < 3:
        return single
    # Of a constant line, nearly all of some pixels are alike too.
    some = lines[..., :: max(1, lines.shape[-1] // _PIXELS)]
    alike = (some - some.median(-1, keepdim=True).values).abs() <= 2 * tolerance
    for n in alike.float().mean((1, 2)).gt(0.75).nonzero().flatten().tolist():
        if not 0 < n < len(lines) - 1:
            continue
        before, line, after = lines[n - 1], lines[n], lines[n + 1]
        centre = line.median(-1, keepdim=True).values
        if (line - centre).abs().flatten().quantile(0.98) <= tolerance:
            least = torch.minimum(_rms(line - before), _rms(line - after))
            single[n] = least > _ABRUPT * _rms(after - before) + tolerance
    return single


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
