"""A frozen image descriptor without learning: an encoder of one's own, in one file.

Use it by its dotted path, ``lateen.demo.descriptor:describe``. It parts figure from ground by the
boundary prior (what differs from a picture's border is figure), and describes the figure by soft
histograms of hue and lightness, by oriented gradients over a spatial pyramid (Lazebnik et al.,
CVPR 2006), and by an autocorrelogram of its outline: how often an edge of one direction has one of
another direction at a given distance and bearing. The last turns with the shape and moves with
it, so it says "star" wherever the star is. Histograms are compared as square roots (Hellinger).

Shapes: ``n`` images, ``S`` = 128 pixels, ``G`` = 64 = S / 2 map cells a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lateen.encoders.base import EncoderInfo

_VERSION = "lateen-descriptor-1"  # of everything below that changes a feature
_SIDE = 128
_GRID = _SIDE // 2
_CELLS = 8  # patches a side
_PYRAMID = (1, 2, 4)
_HUES, _LIGHTS, _DIRECTIONS, _BEARINGS = 12, 3, 8, 8
_DISTANCES = 5  # octaves, the first at _NEAREST map cells
_NEAREST = 1.5
_BORDER = 3
_FIGURE = 0.2  # RGB distance from the ground at which a pixel is 63 % figure
_GREY = 0.15  # chroma below which a pixel has no hue to speak of
_CHUNK = 16  # images at a time: the maps of more do not fit the processor's cache
_COLOURS = (_HUES + 1) * _LIGHTS
_PYRAMID_CELLS = sum(level**2 for level in _PYRAMID)
_CLS = (
    (_COLOURS + _DIRECTIONS) * _PYRAMID_CELLS
    + _DIRECTIONS * _BEARINGS * _DISTANCES
    + _COLOURS
)  # fmt: skip
_PATCH = 2 * _COLOURS + _DIRECTIONS


class Descriptor:
    """The descriptor as a :class:`~lateen.encoders.base.PatchEncoder`.

    ``encode`` gives ``concat(CLS, mean of patches)``: CLS describes the whole picture, a patch its
    cell of the 8 × 8 grid. Pictures of any size and form are squeezed to 128 × 128 pixels.
    """

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="lateen.demo.descriptor:describe",
            modality="image",
            dim=_CLS + _PATCH,
            pooling="cls+mean",
            weights=_VERSION,
            preprocessing={"size": [_SIDE, _SIDE], "resample": "box"},
        )
        self._border, self._design, self._fit = _ground_plane()
        self._bins = _correlogram_bins()

    def prepare(self, items: Sequence[Any]) -> list[torch.Tensor]:
        """PIL images to ``[3, S, S]`` bytes."""
        size = (_SIDE, _SIDE)
        images = (item.convert("RGB").resize(size, Image.Resampling.BOX) for item in items)
        return [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Features ``[n, dim]``, float32."""
        parts = [torch.cat([cls, patch.mean(1)], 1) for cls, patch in self._describe(prepared)]
        return torch.cat(parts) if parts else torch.zeros(0, self.info.dim)

    def encode_patches(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Patch features ``[n, 64, dim]``, float32: ``concat(CLS, patch)`` in raster order."""
        parts = [
            torch.cat([cls[:, None].expand(-1, patch.shape[1], -1), patch], 2)
            for cls, patch in self._describe(prepared)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, _CELLS**2, self.info.dim)

    def _describe(self, prepared: Sequence[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """CLS ``[n, _CLS]`` and patches ``[n, 64, _PATCH]``, a few images at a time."""
        for start in range(0, len(prepared), _CHUNK):
            pixels = torch.stack(list(prepared[start : start + _CHUNK])).float() / 255
            figure = self._figure(pixels)
            colours = _colours(F.avg_pool2d(pixels, 2))
            share = F.avg_pool2d(figure[:, None], 2)
            inside, outside, edges = colours * share, colours * (1 - share), _edges(figure)
            cls = [
                _pyramid(inside),
                _pyramid(edges),
                self._correlogram(edges),
                outside.mean((2, 3)),
            ]
            maps = F.adaptive_avg_pool2d(torch.cat([inside, outside, edges], 1), _CELLS)
            yield torch.cat([_hellinger(part) for part in cls], 1), _patches(maps)

    def _figure(self, pixels: torch.Tensor) -> torch.Tensor:
        """How far each pixel is figure, ``[n, S, S]`` in [0, 1).

        The ground is the plane through the border's colours, channel by channel.
        """
        plane = pixels.flatten(2)[:, :, self._border] @ self._fit.T
        ground = plane @ self._design.T
        apart = F.avg_pool2d(pixels - ground.view_as(pixels), 3, stride=1, padding=1)
        return 1 - torch.exp(-apart.square().sum(1) / _FIGURE**2)

    def _correlogram(self, edges: torch.Tensor) -> torch.Tensor:
        """Pairs of edges by turn, distance and bearing, ``[n, turns · distances · bearings]``.

        The cross-correlation of every pair of direction maps, weighted by each bin and summed
        over all shifts (which wrap around), as one product in the Fourier domain (Parseval).
        """
        spectra = torch.fft.rfft2(edges).flatten(2)
        total = torch.zeros(len(edges), _DIRECTIONS, self._bins.shape[2])
        for direction, bins in enumerate(self._bins):
            crossed = spectra[:, direction, None].conj() * torch.roll(spectra, -direction, 1)
            total += torch.cat([crossed.real, crossed.imag], 2) @ bins
        return total.flatten(1)


def describe() -> Descriptor:
    """The factory that a recipe names: ``encoder: lateen.demo.descriptor:describe``."""
    return Descriptor()


def _edges(figure: torch.Tensor) -> torch.Tensor:
    """The figure's edges by direction, ``[n, directions, G, G]``; they point into the figure."""
    dx = F.pad(figure[:, :, 2:] - figure[:, :, :-2], (1, 1))
    dy = F.pad(figure[:, 2:] - figure[:, :-2], (0, 0, 1, 1))
    edges = _angle_bins(torch.atan2(dy, dx), _DIRECTIONS) * torch.hypot(dx, dy)[:, None]
    return F.avg_pool2d(edges, 2)


def _colours(pixels: torch.Tensor) -> torch.Tensor:
    """Soft membership in (hue or grey) × lightness, ``[n, colours, G, G]``; sums to 1 a pixel.

    Hue and chroma are the polar coordinates of the opponent colours red–green and yellow–blue.
    """
    red, green, blue = pixels.unbind(1)
    red_green = (red - green) / math.sqrt(2)
    yellow_blue = (red + green - 2 * blue) / math.sqrt(6)
    grey = torch.exp(-(red_green.square() + yellow_blue.square()) / _GREY**2)[:, None]
    hues = _angle_bins(torch.atan2(yellow_blue, red_green), _HUES) * (1 - grey)
    light = pixels.mean(1)[:, None] * (_LIGHTS - 1)
    levels = torch.arange(_LIGHTS).view(-1, 1, 1)
    lights = (1 - (light - levels).abs()).clamp(min=0)
    return (torch.cat([hues, grey], 1)[:, :, None] * lights[:, None]).flatten(1, 2)


def _pyramid(maps: torch.Tensor) -> torch.Tensor:
    """Means over the cells of every level, ``[n, channels · cells]``."""
    levels = [F.adaptive_avg_pool2d(maps, level).flatten(1) for level in _PYRAMID]
    return torch.cat(levels, 1)


def _patches(maps: torch.Tensor) -> torch.Tensor:
    return maps.clamp(min=0).sqrt().flatten(2).transpose(1, 2)


def _hellinger(histogram: torch.Tensor) -> torch.Tensor:
    """Square roots of shares: unit length, or zero where there is nothing to count."""
    counts = histogram.clamp(min=0)  # the Fourier domain leaves tiny negative counts
    return (counts / (counts.sum(1, keepdim=True) + 1e-6)).sqrt()


def _angle_bins(angle: torch.Tensor, count: int) -> torch.Tensor:
    """Angles ``[n, h, w]`` shared among the nearest two bins, ``[n, count, h, w]``."""
    position = angle[:, None] * (count / (2 * math.pi)) - torch.arange(count).view(-1, 1, 1)
    return (1 - (position - count * torch.round(position / count)).abs()).clamp(min=0)


def _ground_plane() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Least squares on a picture's border: border mask ``[S²]``, design ``[S², 3]``, fit."""
    inside = torch.zeros(_SIDE - 2 * _BORDER, _SIDE - 2 * _BORDER, dtype=torch.bool)
    border = F.pad(inside, (_BORDER,) * 4, value=True).flatten()
    axis = torch.linspace(-1, 1, _SIDE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    design = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)
    return border, design, torch.linalg.pinv(design[border])


def _correlogram_bins() -> torch.Tensor:
    """Spectra of the shift bins, ``[directions, 2 · frequencies, distances · bearings]``.

    Bearings are relative to the direction of the first edge, so that turning a picture changes
    nothing. Real and imaginary parts are stacked, frequencies weighted for a half spectrum.
    """
    shift = torch.fft.fftfreq(_GRID) * _GRID
    dy, dx = torch.meshgrid(shift, shift, indexing="ij")
    octave = torch.log2(torch.hypot(dx, dy).clamp(min=_NEAREST / 2) / _NEAREST)
    rings = (1 - (octave - torch.arange(_DISTANCES).view(-1, 1, 1)).abs()).clamp(min=0)
    half = torch.full((_GRID // 2 + 1,), 2.0)
    half[0] = half[-1] = 1.0
    spectra = []
    for direction in range(_DIRECTIONS):
        bearing = torch.atan2(dy, dx) - direction * 2 * math.pi / _DIRECTIONS
        bins = _angle_bins(bearing[None], _BEARINGS)[0][None] * rings[:, None]
        spectrum = torch.fft.rfft2(bins.flatten(0, 1)) * half / _GRID**2
        spectra.append(torch.cat([spectrum.real.flatten(1), spectrum.imag.flatten(1)], 1).T)
    return torch.stack(spectra)
