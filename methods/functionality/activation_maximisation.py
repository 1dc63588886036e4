"""The images that filters respond to most: what each filter looks for, as a picture.

Gradient ascent on the image, the network frozen, from one start image for all filters. A response
averaged over positions does not care where a pattern lies; a common start makes equal filters find
it at the same place, so that their images can be compared pixel by pixel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Session
from methods.errors import MethodError
from methods.structure.cost import evaluation_mode

SHORTEST = 1e-12  #: A gradient below this length is no direction.


@dataclass(frozen=True, kw_only=True, slots=True)
class Ascent:
    """How images are optimised."""

    steps: int
    step_size: float  #: Length of the gradient's part of a step, in units of normalised pixels.
    decay: float  #: Share of the image taken away at each step.
    noise: float  #: Standard deviation of the start image, in normalised pixels.
    batch_size: int  #: Images optimised at once; they do not depend on each other.


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where every ascent begins, and between which values pixels stay."""

    image: Tensor  #: ``[C, H, W]``
    lowest: Tensor  #: ``[C, 1, 1]``
    highest: Tensor  #: ``[C, 1, 1]``


def draw_start(session: Session, noise: float, images: int) -> Start:
    """Draw the noise every ascent begins with; pixels keep to the range of training images.

    Args:
        session: Gives the randomness and the images.
        noise: Standard deviation, in normalised pixels.
        images: Training images whose lowest and highest values bound each channel.
    """
    drawn = torch.randn(session.layout.input_shape, generator=session.generator("start image"))
    extremes = [
        torch.stack(batch.transpose(0, 1).flatten(1).aminmax(dim=1))  # [2, C]
        for batch, _ in session.batches(images)
    ]
    lowest, highest = torch.stack(extremes).amin(dim=0)[0], torch.stack(extremes).amax(dim=0)[1]
    return Start(
        image=(noise * drawn).to(session.device),
        lowest=lowest[:, None, None],
        highest=highest[:, None, None],
    )


def maximise(
    network: nn.Module, layer: str, filters: range, start: Start, ascent: Ascent
) -> Tensor:
    """Find, for each of ``filters``, an image that its mean response to is high.

    Args:
        network: Left as found; runs in evaluation mode, up to ``layer``.
        layer: Module that emits one channel per filter: the batch norm, before any rectifier,
            behind which many filters have no gradient at the start.
        filters: Channels of ``layer``.
        start: Image to begin with, and the range of pixels.
        ascent: Settings.

    Returns:
        ``[len(filters), C, H, W]``
    """
    with evaluation_mode(network), torch.enable_grad():
        return torch.cat(
            [
                _climb(network, layer, channels, start, ascent)
                for channels in torch.split(torch.tensor(filters), ascent.batch_size)
            ]
        )


def _climb(
    network: nn.Module, layer: str, channels: Tensor, start: Start, ascent: Ascent
) -> Tensor:
    own = channels[:, None].to(start.image.device)
    images = start.image.expand(len(channels), *start.image.shape).clone()
    for _ in range(ascent.steps):
        images.requires_grad_()
        total = responses(network, layer, images).gather(1, own).sum()
        (gradient,) = torch.autograd.grad(total, images)
        length = gradient.flatten(1).norm(dim=1).clamp(min=SHORTEST)[:, None, None, None]
        with torch.no_grad():
            step = ascent.step_size * gradient / length - ascent.decay * images
            images = torch.clamp(images + step, start.lowest, start.highest)
    return images


def responses(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return the mean of each channel of ``layer`` over its positions, ``[N, channels]``.

    The network runs in the mode it is in, and no further than the first call of ``layer``.

    Raises:
        MethodError: ``layer`` is never called.
    """
    with _stop_behind(network.get_submodule(layer)):
        try:
            network(images)
        except _ReachedError as reached:
            return reached.output.mean(dim=(2, 3))
    raise MethodError(
        f"The network runs without its layer {layer!r}, so what its filters do cannot be seen. "
        "Protect that layer, or remove it from the network."
    )


class _ReachedError(Exception):
    """Carries what a layer emitted out of the network's forward pass."""

    def __init__(self, output: Tensor) -> None:
        super().__init__(output)
        self.output = output


@contextmanager
def _stop_behind(layer: nn.Module) -> Iterator[None]:
    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _ReachedError(output)

    handle = layer.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()
