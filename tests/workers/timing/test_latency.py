import torch
from torch import Tensor, nn

from workers.timing.latency import REPETITIONS, measure_latency

CPU = torch.device("cpu")


class Counting(nn.Module):
    def __init__(self, log: list[str], name: str, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.log, self.name = log, name

    def forward(self, images: Tensor) -> Tensor:
        self.log.append(self.name)
        out: Tensor = self.conv(images)
        return out

    def __deepcopy__(self, memo: object) -> "Counting":
        return Counting(self.log, self.name, self.conv.out_channels)


def test_each_batch_size_has_a_record_with_what_the_reader_needs() -> None:
    networks = [nn.Sequential(nn.Conv2d(3, width, 3)) for width in (64, 4)]
    records = measure_latency(
        networks[0], networks[1], (3, 16, 16), CPU, batch_sizes=(1, 8), seconds=0.0
    )
    assert [record.batch_size for record in records] == [1, 8]
    for record in records:
        assert record.repetitions == REPETITIONS == 30
        assert 0 < record.median_ms <= record.p90_ms
        assert 0 < record.base_median_ms <= record.base_p90_ms
        assert record.speed_up == record.base_median_ms / record.median_ms
        assert record.dtype == "float32"
        assert record.device_name
        assert record.threads == torch.get_num_threads()


def test_networks_take_turns_and_neither_always_goes_first() -> None:
    log: list[str] = []
    measure_latency(
        Counting(log, "base", 4),
        Counting(log, "pruned", 2),
        (3, 4, 4),
        CPU,
        batch_sizes=(1,),
        seconds=0.0,
    )
    timed = log[-2 * REPETITIONS :]
    rounds = [tuple(timed[i : i + 2]) for i in range(0, len(timed), 2)]
    assert rounds[::2] == [("base", "pruned")] * (REPETITIONS // 2)
    assert rounds[1::2] == [("pruned", "base")] * (REPETITIONS // 2)
    assert len(log) > len(timed)  # warm-up is not timed


def test_a_much_smaller_network_is_faster() -> None:
    base, pruned = (nn.Sequential(nn.Conv2d(3, width, 3)) for width in (256, 4))
    (record,) = measure_latency(base, pruned, (3, 48, 48), CPU, batch_sizes=(4,), seconds=0.0)
    assert record.speed_up > 1.0


def test_networks_are_left_as_found_whatever_the_type() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    (record,) = measure_latency(
        network, network, (3, 8, 8), CPU, batch_sizes=(2,), dtype="bfloat16", seconds=0.0
    )
    assert record.dtype == "bfloat16"
    assert network.training
    assert all(p.dtype == torch.float32 for p in network.parameters())
