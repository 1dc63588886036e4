from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from workers.data import load
from workers.errors import ModelError
from workers.models import build_model, list_models
from workers.settings import DataSettings, ModelSettings


def tiny(num_classes: int, width: int = 2) -> nn.Module:
    return nn.Linear(width, num_classes)


def takes_anything(**options: int) -> nn.Module:
    return nn.Linear(2, options["num_classes"])


def grey_aware(in_channels: int) -> nn.Module:
    return nn.Conv2d(in_channels, 1, 1)


def not_a_network(num_classes: int) -> int:
    return num_classes


def raises(num_classes: int, depth: int) -> nn.Module:
    raise ValueError(f"depth {depth} is odd")


def lazy(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(num_classes))


def halved(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, num_classes)).half()


def synchronised(num_classes: int) -> nn.Module:
    norm = nn.BatchNorm2d(4, eps=0.1, momentum=0.3)
    nn.init.uniform_(norm.weight)
    head = (nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, num_classes))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, *head)
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def build(name: str, classes: int = 10, channels: int = 3, **arguments: Any) -> nn.Module:
    return build_model(ModelSettings(name=name, arguments=arguments), classes, channels)


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("cifar_resnet20", 40_551_040, 269_722),
        ("cifar_resnet32", 68_862_592, 464_154),
        ("cifar_resnet56", 125_485_696, 853_018),
        ("cifar_resnet110", 252_887_680, 1_727_962),
        ("cifar_vgg16", 313_196_544 + 5_120, 14_710_464 + 8_448 + 5_130),
    ],
)
def test_networks_cost_what_was_published(name: str, macs: int, parameters: int) -> None:
    network = build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() // 2 == macs
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vgg16", "digits_net"])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_the_zoo_take_grey_and_colour(name: str, channels: int) -> None:
    network = build(name, classes=7, channels=channels).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_the_zoo_is_listed_before_torchvision() -> None:
    names = list_models()
    assert names[0] == "cifar_resnet20"
    assert {"cifar_vgg19", "digits_net", "torchvision/resnet50"} <= set(names)


def test_the_digits_network_takes_8x8_images() -> None:
    assert build("digits_net", channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_padded_shortcuts_add_no_parameters_and_projections_do() -> None:
    padded = {name for name, _ in build("cifar_resnet20").named_parameters()}
    projected = {
        name for name, _ in build("cifar_resnet20", shortcut="projection").named_parameters()
    }
    assert not [name for name in padded if "shortcut" in name]
    assert projected - padded == {
        f"layer{stage}.0.shortcut.{part}"
        for stage in (2, 3)
        for part in ("0.weight", "1.weight", "1.bias")
    }


def test_a_padded_shortcut_keeps_every_other_pixel_between_channels_of_zeros() -> None:
    shortcut = build("cifar_resnet20").get_submodule("layer2.0.shortcut")
    images = torch.arange(16 * 4 * 4.0).reshape(1, 16, 4, 4) + 1
    shortened = shortcut(images)
    assert shortened.shape == (1, 32, 2, 2)
    assert torch.equal(shortened[:, 8:24], images[:, :, ::2, ::2])
    assert not shortened[:, :8].any()
    assert not shortened[:, 24:].any()


def test_the_callers_seed_decides_the_weights() -> None:
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(nn.utils.parameters_to_vector(build("digits_net", channels=1).parameters()))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_torchvision_networks_get_the_classes_of_the_data() -> None:
    network = build("torchvision/squeezenet1_1", classes=7).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.slow  # 86 million weights are drawn
def test_a_vision_transformer_does_not_begin_with_the_same_logits_for_all() -> None:
    head = build("torchvision/vit_b_16", classes=7).get_submodule("heads.head")
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7
    assert head.weight.std() > 0.01


def test_a_torchvision_network_refuses_grey_images() -> None:
    with pytest.raises(ModelError, match="takes images of 3 channels, the data set has 1"):
        build("torchvision/squeezenet1_1", channels=1)


def test_code_is_called_with_the_classes_and_the_arguments() -> None:
    network = build(f"{__name__}:tiny", classes=7, width=5)
    assert network(torch.zeros(1, 5)).shape == (1, 7)


def test_code_is_given_only_what_its_signature_takes() -> None:
    assert build(f"{__name__}:takes_anything", classes=7)(torch.zeros(1, 2)).shape == (1, 7)
    assert build(f"{__name__}:grey_aware", channels=4)(torch.zeros(1, 4, 2, 2)).shape[1] == 1


def test_networks_in_half_precision_are_trained_in_single() -> None:
    network = build(f"{__name__}:halved", classes=7)
    assert network(torch.zeros(2, 3, 3, 3)).dtype == torch.float32


def test_norms_over_several_devices_are_plain_ones_on_one() -> None:
    torch.manual_seed(0)
    network, images = build(f"{__name__}:synchronised"), torch.rand(8, 3, 3, 3)
    torch.manual_seed(0)
    as_written = synchronised(10)
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())
    for _ in range(2):  # with the running statistics of the first
        torch.testing.assert_close(network(images), as_written(images))
    assert network.state_dict().keys() == as_written.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (f"{__name__}:lazy", "lazy layers that no image has passed"),
        ("cifar-resnet20", "did you mean 'cifar_resnet20'"),
        ("resnet18", "did you mean 'torchvision/resnet18'"),
        ("torchvision/resnet19", "did you mean 'torchvision/resnet18'"),
        ("zzz", "the zoo has cifar_resnet20"),
        ("no_such_package.nets:tiny", "cannot be imported"),
        ("..x:y", "write mine.py:Name or package.module:Name"),
        ("os.path:join:x", "write mine.py:Name or package.module:Name"),
        ("builtins:exit", "belongs to Python itself"),
        ("os:_exit", "belongs to Python itself"),
        ("torch.nn:Identity", "has no weights"),
        ("antigravity_of_mine:", "write mine.py:Name or package.module:Name"),
        (f"{__name__}:gone", "has no 'gone'"),
        (f"{__name__}:not_a_network", "must return a torch.nn.Module"),
        ("math:pi", "belongs to Python itself"),
        ("torch:pi", "cannot be called"),
    ],
)
def test_an_unusable_name_says_what_to_write_instead(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        build(name)


@pytest.mark.parametrize(
    ("name", "arguments", "hint"),
    [
        ("cifar_resnet20", {"width": 3}, "It takes: shortcut"),
        ("cifar_resnet20", {"shortcut": "none"}, "'pad'"),
        ("torchvision/squeezenet1_1", {"width": 3}, "unexpected keyword argument 'width'"),
        (f"{__name__}:tiny", {"widht": 3}, "It takes: width"),
        (f"{__name__}:raises", {}, "It takes: depth"),
        (f"{__name__}:raises", {"depth": 3}, "depth 3 is odd"),
        ("cifar_resnet20", {"num_classes": 3}, "come from the data set"),
    ],
)
def test_wrong_arguments_are_named(name: str, arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        build(name, **arguments)


@pytest.mark.slow
def test_the_digits_network_learns_the_digits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = load(DataSettings(), "cpu", tmp_path)
    network, generator = build("digits_net", channels=1), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(6):
        for images, labels in data.train_batches(64, generator, "shift"):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    test, correct = data.take_test(), 0
    with torch.no_grad():
        for images, labels in data.eval_batches(test, 500):
            correct += int((network.eval()(images).argmax(dim=1) == labels).sum())
    assert correct / len(test) > 0.97
