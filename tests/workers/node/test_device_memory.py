"""What a trial takes of a GPU, and errors that say it ran out."""

import pickle
from pathlib import Path

import pytest
import torch

from workers.node.actor import Worker
from workers.node.device_memory import CONTEXT_BYTES, begin_measuring, measured, ran_out
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec

BLOCK = 256 << 20  #: Bytes.


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (MemoryError("CUDA error: out of memory"), False),  # the machine's own
        (ValueError("out of memory"), False),
    ],
)
def test_an_error_for_want_of_device_memory_is_known_after_it_has_travelled(
    error: Exception, is_it: bool
) -> None:
    assert ran_out(pickle.loads(pickle.dumps(error))) is is_it


def test_a_cpu_says_nothing_of_memory() -> None:
    begin_measuring(torch.device("cpu"))
    assert measured(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_peak_of_a_trial_is_measured_not_that_of_the_one_before() -> None:
    device = torch.device("cuda")
    for blocks in (3, 1):
        begin_measuring(device)
        held = [torch.empty(BLOCK, dtype=torch.uint8, device=device) for _ in range(blocks)]
        del held
        found = measured(device)
        assert found is not None
        assert blocks * BLOCK <= found.peak_bytes - CONTEXT_BYTES < (blocks + 0.5) * BLOCK
        assert found.total_bytes == torch.cuda.get_device_properties(device).total_memory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_that_is_too_small_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert ran_out(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_worker_tells_what_its_trial_took_before_the_result(tmp_path: Path) -> None:
    worker = Worker("cuda", str(tmp_path), str(tmp_path), "workers.trial:run_trial")
    data = DataSettings()
    spec = TrialSpec(
        kind="baseline",
        model=ModelSettings(name="digits_net"),
        data=data,
        data_hash=worker._node.data(data).info.data_hash,
        recipe=Recipe(epochs=1),
        seed=0,
    )
    messages = [m for batch in worker.run(spec.model_dump(mode="json"), True) for m in batch]
    assert [message[0] for message in messages][-2:] == ["memory", "result"]
    memory = messages[-2]
    assert memory[0] == "memory"
    assert CONTEXT_BYTES < memory[1] < memory[2]
