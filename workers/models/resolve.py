"""From a name in the settings to a network: the zoo, torchvision, timm, or the user's own code."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from methods.own_code import OwnCodeError, check_unchanged, load
from workers.errors import ModelError
from workers.models.cifar_resnet import CifarResNet
from workers.models.cifar_vgg import CifarVGG
from workers.models.digits_net import DigitsNet
from workers.models.published import TIMM, TORCHVISION, load_timm
from workers.settings import ModelSettings

ZOO: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    **{f"cifar_vgg{depth}": partial(CifarVGG, depth) for depth in (16, 19)},
    "digits_net": DigitsNet,
}


def list_models() -> tuple[str, ...]:
    """Names ``build_model`` knows by itself: the zoo first, then torchvision's classifiers."""
    import torchvision  # only here: a network of the zoo does without its second

    theirs = torchvision.models.list_models(module=torchvision.models)
    return (*ZOO, *(TORCHVISION + name for name in theirs))


def check_name(name: str) -> None:
    """Refuse a name that stands for no network; the user's own code is not looked at.

    Raises:
        ModelError: It is unknown, or needs a package that is not installed.
    """
    if name.startswith(TIMM):
        timm, own = load_timm(name), name.removeprefix(TIMM)
        if not timm.is_model(own):
            close = get_close_matches(own, timm.list_models(), n=1)
            hint = f"did you mean {TIMM + close[0]!r}?" if close else "timm.list_models() has all."
            raise ModelError(f"There is no model {name!r}; {hint}")
    elif ":" not in name and name not in ZOO and name not in list_models():
        raise _unknown(name)


def build_model(settings: ModelSettings, num_classes: int, in_channels: int) -> nn.Module:
    """Build the network with fresh weights, drawn from torch's global generator.

    The caller seeds torch first. Code named as ``package.module:callable`` is given
    ``num_classes`` if its signature takes it (by name or by ``**kwargs``) and ``in_channels`` if
    it names it.

    Raises:
        ModelError: The name is unknown, its arguments are not taken, or it takes other images.
    """
    for name in {"num_classes", "in_channels", "weights"} & settings.arguments.keys():
        raise ModelError(
            f"Model {settings.name!r} is given the argument {name!r}, which a sweep sets itself: "
            "classes and channels come from the data set, weights from a checkpoint. Leave it out."
        )
    if settings.name in ZOO:
        factory = ZOO[settings.name]
        return _call(factory, settings, num_classes=num_classes, in_channels=in_channels)
    if settings.name.startswith(TORCHVISION):
        return _from_torchvision(settings, num_classes, in_channels)
    if settings.name.startswith(TIMM):
        return _from_timm(settings, num_classes, in_channels)
    if ":" in settings.name:
        return _as_trials_train_it(_from_code(settings, num_classes, in_channels), settings)
    raise _unknown(settings.name)


def _as_trials_train_it(network: nn.Module, settings: ModelSettings) -> nn.Module:
    """Return a user's network on one device and in float32; autocast is the recipe's to say."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    unborn = next((name for name, tensor in tensors if is_lazy(tensor)), None)
    if unborn is not None:
        raise ModelError(
            f"Model {settings.name!r} has lazy layers that no image has passed ({unborn!r} has no "
            "shape yet). Run it once where it is built, on zeros of the images' shape."
        )
    if any(t.is_floating_point() and t.dtype != torch.float32 for _, t in tensors):
        network = network.float()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.SyncBatchNorm) and name:  # of one device the plain one is the same
            network.set_submodule(name, _plain(layer))
    return network


class _OneDeviceNorm(nn.BatchNorm2d):
    """What a batch norm over several devices is on one, for vectors as well."""

    def _check_input_dim(self, input: Tensor) -> None:  # torch's own name
        pass


def _plain(norm: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    plain = _OneDeviceNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    plain.load_state_dict(norm.state_dict())
    return plain.train(norm.training)


def _from_torchvision(settings: ModelSettings, num_classes: int, in_channels: int) -> nn.Module:
    import torchvision

    check_name(settings.name)
    build = torchvision.models.get_model_builder(settings.name.removeprefix(TORCHVISION))
    model = _call(build, settings, weights=None, num_classes=num_classes)
    stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if stem is not None and stem.in_channels != in_channels:
        raise ModelError(
            f"Model {settings.name!r} takes images of {stem.in_channels} channels, the data set "
            f"has {in_channels}; choose a model of the zoo, which takes any number of channels."
        )
    return _telling_images_apart(model)


def _telling_images_apart(model: nn.Module) -> nn.Module:
    """Draw linear layers that begin at zero: the head of torchvision's vision transformers is one.

    As long as it gives every image the same logits, no gradient passes it, and what was cut wrongly
    cannot be seen behind it.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            layer.reset_parameters()
    return model


def _from_timm(settings: ModelSettings, num_classes: int, in_channels: int) -> nn.Module:
    check_name(settings.name)
    build = partial(load_timm(settings.name).create_model, settings.name.removeprefix(TIMM))
    return _call(build, settings, pretrained=False, num_classes=num_classes, in_chans=in_channels)


def _from_code(settings: ModelSettings, num_classes: int, in_channels: int) -> nn.Module:
    try:
        check_unchanged(settings.name, settings.code)
        factory = load(settings.name)
    except OwnCodeError as error:
        raise ModelError(
            f"Model {error} It is called as build(num_classes, in_channels), with those of the "
            "two that it names."
        ) from error
    except (Exception, SystemExit) as error:  # a module may raise anything
        raise ModelError(
            f"Model {settings.name!r}: module {settings.name.partition(':')[0]!r} cannot be "
            f"imported ({_told(error)}); put it into the working folder, or install it on every "
            "node."
        ) from error
    parameters = _signature(factory, settings).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given: dict[str, Any] = {}
    if takes_any or "num_classes" in parameters:
        given["num_classes"] = num_classes
    if "in_channels" in parameters:
        given["in_channels"] = in_channels
    return _call(factory, settings, **given)


def _call(factory: Callable[..., Any], settings: ModelSettings, **given: Any) -> nn.Module:
    """Call with what the sweep gives and what the settings add; say it clearly when they clash."""
    signature = _signature(factory, settings)
    try:
        signature.bind(**given, **settings.arguments)
    except TypeError as error:
        known = [name for name in signature.parameters if name not in given]
        raise ModelError(
            f"Model {settings.name!r} cannot be built with arguments {settings.arguments}: {error}."
            f" It takes: {', '.join(known) or 'none'}."
        ) from error
    try:
        model = factory(**given, **settings.arguments)
    except (Exception, SystemExit) as error:  # it may raise anything
        raise ModelError(
            f"Model {settings.name!r} cannot be built with arguments {settings.arguments}: "
            f"{_told(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"Model {settings.name!r} returned a {type(model).__name__}; it must return a "
            "torch.nn.Module."
        )
    if next(model.parameters(), None) is None:
        raise ModelError(f"Model {settings.name!r} has no weights, so nothing can be trained.")
    return model


def _told(error: BaseException) -> str:
    """Say what happened; kinds that say little by themselves with their name."""
    if isinstance(error, ImportError | TypeError | ValueError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _signature(factory: Callable[..., Any], settings: ModelSettings) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError) as error:  # not callable, or a builtin without one
        raise ModelError(
            f"Model {settings.name!r} is a {type(factory).__name__} that cannot be called by "
            "keyword; name a class or a function that returns a torch.nn.Module."
        ) from error


def _unknown(name: str) -> ModelError:
    known = list_models()
    close = [TORCHVISION + name] if TORCHVISION + name in known else []
    close = close or get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the zoo has {', '.join(ZOO)}."
    return ModelError(
        f"There is no model {name!r}; {hint} Also possible: torchvision/NAME, "
        "timm/NAME, mynet.py:build and package.module:build."
    )
