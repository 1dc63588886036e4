"""Control images: they look like data and say nothing about the label of the image they stand for.

Source: Tang et al., "SCOP: Scientific Control for Reliable Neural Network Pruning", NeurIPS 2020,
arXiv:2010.10732. A construction is a function of images alone, so no label can get into it.
Constructions that follow each pixel (second-order knockoffs) are left out: neighbouring pixels say
so much of each other that such a control is nearly the image itself.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Knockoff = Callable[[Tensor], Tensor]  #: Images ``[N, C, H, W]`` to as many controls.
Construction = Literal["permutation", "pca_gaussian", "white_noise"]


def make_knockoff(
    name: Construction, sample: Callable[[], Tensor], generator: torch.Generator
) -> Knockoff:
    """Return the construction called ``name``.

    Args:
        name: ``permutation``: another image of the batch; ``pca_gaussian``: a draw with the mean
            and covariance of training images; ``white_noise``: the mean and variance of each
            colour only, a control of the control.
        sample: Gives training images, ``[n, C, H, W]``; called only if they are needed.
        generator: On the CPU.
    """
    if name == "permutation":
        return lambda images: permuted(images, generator)
    if name == "white_noise":
        return lambda images: white_noise(images, generator)
    known = sample()
    return lambda images: pca_gaussian(images, known, generator)


def permuted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Give every image's place to another image; a single image stays, and weighs nothing then."""
    if len(images) < 2:
        return images
    return images.roll(int(torch.randint(1, len(images), (), generator=generator)), dims=0)


def pca_gaussian(images: Tensor, sample: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the normal distribution with the mean and covariance of ``sample``.

    A combination of its centred images with normal weights is such a draw: what a principal
    component analysis with all components gives, without one.
    """
    flat = sample.flatten(1)  # [n, C * H * W]
    mean = flat.mean(dim=0)
    weights = torch.randn(len(images), len(flat), generator=generator).to(flat)
    drawn = mean + weights @ (flat - mean) / math.sqrt(max(len(flat) - 1, 1))
    return drawn.reshape(images.shape).to(images)


def white_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw every pixel by itself, with the mean and variance of its colour in the batch."""
    spread, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True, correction=0)
    noise = torch.randn(images.shape, generator=generator).to(images)
    drawn: Tensor = mean + spread * noise
    return drawn
