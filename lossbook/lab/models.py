r"""Small networks beside the multilayer perceptron: residual, convolutional, and with attention.

Each function is a builder in the manner of :func:`lossbook.lab.training.mlp`: it checks its numbers
and returns a function without arguments that makes a module with fresh weights. The modules hold no
randomness and no state beyond their parameters (batch normalization apart), so they can be stacked
over seeds by :class:`~lossbook.lab.training.Ensemble`, called by ``torch.func.functional_call`` and
differentiated twice.

Pictures are ``(N, C, H, W)``. Anything with fewer dimensions, such as the digits' ``(N, 64)``, is
taken as square pictures written out in a row.

Weights start from He's normal distribution, with which the signal keeps its size through plain
layers of any depth. A branch that is *added* to its input is scaled by :math:`1/\sqrt{L}`, L the
number of branches, unless it is normalized: so the sum keeps its size too, up to a constant factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["convnet", "residual_mlp", "resnet", "transformer"]

Build = Callable[[], nn.Module]
Norm = Literal["group", "batch"]


def residual_mlp(inputs: int, width: int, depth: int, classes: int, *, skips: bool = True) -> Build:
    r"""A builder of deep perceptrons of constant width, with or without skip connections.

    .. math:: h_0 = W_0 x + b_0, \qquad
        h_l = h_{l-1} + \tfrac{1}{\sqrt L} \bigl( W_l \,\mathrm{relu}(h_{l-1}) + b_l \bigr),
        \qquad z = W \,\mathrm{relu}(h_L) + b

    Without skips :math:`h_l = W_l \,\mathrm{relu}(h_{l-1}) + b_l`: as many parameters, the same
    size of the signal at the start.

    Args:
        inputs: Number of inputs; pictures are flattened.
        width: Units in each hidden layer.
        depth: L, the number of layers from width to width, at least 1.
        classes: Number of outputs.
        skips: Whether each layer adds to its input or replaces it.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> build = residual_mlp(64, 32, 8, 10)
        >>> build()(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 10])
    """
    _check(inputs=inputs, width=width, depth=depth, classes=classes)

    def build() -> nn.Module:
        blocks = [
            _Block(nn.Sequential(nn.ReLU(), _he(nn.Linear(width, width))), skips, depth**-0.5)
            for _ in range(depth)
        ]
        stem, head = nn.Linear(inputs, width), nn.Linear(width, classes)
        return nn.Sequential(nn.Flatten(), stem, *blocks, nn.ReLU(), head)

    return build


def convnet(channels: int, classes: int, *, width: int = 16) -> Build:
    """A builder of three 3 x 3 convolutions, the last two with stride 2, averaged over the picture.

    Args:
        channels: Of the picture: 1 if gray, 3 if colored.
        classes: Number of outputs.
        width: Channels after the first convolution; twice as many after the other two.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> convnet(1, 10)()(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """
    _check(channels=channels, classes=classes, width=width)

    def build() -> nn.Module:
        return nn.Sequential(
            _Pictures(channels),
            _convolution(channels, width, bias=True),
            nn.ReLU(),
            _convolution(width, 2 * width, 2, bias=True),
            nn.ReLU(),
            _convolution(2 * width, 2 * width, 2, bias=True),
            nn.ReLU(),
            _Mean((2, 3)),
            nn.Linear(2 * width, classes),
        )

    return build


def resnet(
    channels: int,
    classes: int,
    *,
    width: int = 16,
    blocks: int = 1,
    skips: bool = True,
    norm: Norm | None = "group",
) -> Build:
    r"""A builder of small residual networks: three stages of blocks of two 3 x 3 convolutions.

    The design of He et al. for small pictures: a first convolution, then stages with ``width``, 2
    and 4 times ``width`` channels, the second and third at half the resolution of the one before,
    and an average over the picture. A network has 6 ``blocks`` + 2 layers with weights. A shortcut
    has no parameters: where the resolution halves it takes every second pixel and fills the new
    channels with zeros. So networks with and without skips have the same parameters.

    Args:
        channels: Of the picture: 1 if gray, 3 if colored.
        classes: Number of outputs.
        width: Channels of the first stage.
        blocks: Blocks in each stage; 3 gives the 20-layer network, 9 the one with 56 layers.
        skips: Whether a block adds to its input or replaces it.
        norm: After each convolution: ``"group"`` (four groups of channels, each example alone),
            ``"batch"``, or None, with biases in its place.

    Raises:
        ValueError: If a number is below 1 or the norm unknown.

    Source: ``he2016deep``.

    Pitfall: batch normalization couples the examples of a batch and updates its statistics in
    place, which ``vmap`` forbids in training mode: under an ``Ensemble`` use the other two.

    Example:
        >>> resnet(1, 10, width=4)()(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    _check(channels=channels, classes=classes, width=width, blocks=blocks)
    if norm not in ("group", "batch", None):
        raise ValueError(f"norm must be 'group', 'batch' or None, got {norm!r}")

    def layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        convolution = _convolution(inputs, outputs, stride, bias=norm is None)
        if norm is None:
            return [convolution]
        if norm == "batch":
            return [convolution, nn.BatchNorm2d(outputs)]
        return [convolution, nn.GroupNorm(math.gcd(4, outputs), outputs)]

    def build() -> nn.Module:
        scale = 1.0 if norm else (3 * blocks) ** -0.5
        body: list[nn.Module] = [*layer(channels, width), nn.ReLU()]
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                outputs, stride = width * 2**stage, 2 if stage and not block else 1
                branch = [*layer(inputs, outputs, stride), nn.ReLU(), *layer(outputs, outputs)]
                shortcut = nn.Identity() if stride == 1 else _Shortcut(outputs - inputs)
                body += [_Block(nn.Sequential(*branch), skips, scale, shortcut), nn.ReLU()]
                inputs = outputs
        return nn.Sequential(_Pictures(channels), *body, _Mean((2, 3)), nn.Linear(inputs, classes))

    return build


def transformer(
    channels: int,
    classes: int,
    *,
    size: int = 8,
    patch: int = 2,
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
) -> Build:
    r"""A builder of small transformers on the patches of a picture.

    Patches become vectors by one linear map, learned positions are added, and ``depth`` blocks
    follow, each :math:`h \leftarrow h + \mathrm{attention}(\mathrm{norm}(h))` and
    :math:`h \leftarrow h + \mathrm{mlp}(\mathrm{norm}(h))` with layer norm *before* the branch and
    twice as many units in the middle. The mean over the patches, normalized, is classified.

    Args:
        channels: Of the picture: 1 if gray, 3 if colored.
        classes: Number of outputs.
        size: Edge of the square picture in pixels.
        patch: Edge of a patch; must divide ``size``.
        width: Of the vectors, a multiple of ``heads``.
        depth: Number of blocks.
        heads: Number of attention heads.

    Raises:
        ValueError: If a number is below 1, or one does not divide the other as it should.

    Source: ``dosovitskiy2021image``.

    Example:
        >>> transformer(1, 10)()(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """
    _check(channels=channels, classes=classes, size=size, patch=patch)
    _check(width=width, depth=depth, heads=heads)
    for name, whole, part in (("size", size, patch), ("width", width, heads)):
        if whole % part:
            raise ValueError(f"{name} must be a multiple of {part}, got {whole}")

    def build() -> nn.Module:
        blocks: list[nn.Module] = []
        for _ in range(depth):
            middle = [nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)]
            blocks += [
                _Block(nn.Sequential(nn.LayerNorm(width), _Attention(width, heads)), True, 1.0),
                _Block(nn.Sequential(nn.LayerNorm(width), *middle), True, 1.0),
            ]
        return nn.Sequential(
            _Pictures(channels),
            _Patches(channels, (size // patch) ** 2, patch, width),
            *blocks,
            _Mean((1,)),
            nn.LayerNorm(width),
            nn.Linear(width, classes),
        )

    return build


# ------------------------------------------------------------------------------------- the parts


class _Block(nn.Module):
    """shortcut(x) + scale * branch(x), or the branch alone."""

    def __init__(
        self, branch: nn.Module, skips: bool, scale: float, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch, self.scale = branch, scale
        self.shortcut = (shortcut or nn.Identity()) if skips else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.branch(x)
        return self.shortcut(x) + self.scale * self.branch(x)


class _Shortcut(nn.Module):
    """Every second pixel, and new channels of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.channels))


class _Pictures(nn.Module):
    """Pictures (N, C, H, W) as they are, anything flatter as square pictures."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            x = x.flatten(1)
            side = math.isqrt(x.shape[1] // self.channels)
            if side**2 * self.channels != x.shape[1]:
                raise ValueError(
                    f"inputs must be {self.channels} channel(s) of square pictures, "
                    f"got {x.shape[1]} numbers each"
                )
            x = x.unflatten(1, (self.channels, side, side))
        if x.shape[1] != self.channels:
            raise ValueError(f"inputs must have {self.channels} channel(s), got {x.shape[1]}")
        return x


class _Patches(nn.Module):
    """Pictures to vectors (N, patches, width), with learned positions."""

    def __init__(self, channels: int, patches: int, patch: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(patches, width))

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.embedding(x).flatten(2).transpose(1, 2)
        if vectors.shape[1] != len(self.positions):
            raise ValueError(
                f"inputs must be pictures of {len(self.positions)} patches, got {vectors.shape[1]}"
            )
        return vectors + self.positions


class _Attention(nn.Module):
    """Self-attention written out: torch's fused kernels cannot be differentiated twice."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.project(x).chunk(3, dim=2)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return self.mix((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class _Mean(nn.Module):
    """The mean over some dimensions."""

    def __init__(self, dimensions: tuple[int, ...]) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dimensions)


def _convolution(inputs: int, outputs: int, stride: int = 1, *, bias: bool) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    _he(layer)
    return layer


def _he(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """He's normal start for a layer next to a ReLU; biases at zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
