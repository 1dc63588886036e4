"""A whole training step as a CUDA graph: what the loop of a session is held against."""

import time

import torch
import torch.nn.functional as F
from torch.optim import SGD

from benchmarks.loops import Case, Prepare
from workers.training.measure import synchronize

IMAGES = 50_000
SECONDS = 3.0


def graph_rate(case: Case, device: torch.device, prepare: Prepare | None) -> float:
    """Return the images a second of a step that is replayed as a graph, on a CUDA device.

    The images lie on the device as float32, gathered by batch outside the graph. The learning rate
    is part of the graph, so a schedule would change it through a tensor.
    """
    info, recipe = case.info, case.recipe
    network = case.network()
    if prepare:
        prepare(network)
    network.to(device).to(memory_format=torch.channels_last).train()
    everything = torch.randn(IMAGES, *info.input_shape, device=device)
    everything = everything.contiguous(memory_format=torch.channels_last)
    classes = torch.randint(info.num_classes, (len(everything),), device=device)
    images, labels = everything[: recipe.batch_size].clone(), classes[: recipe.batch_size].clone()
    optimizer = SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    reduced = recipe.precision == "bfloat16"

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=reduced, cache_enabled=False):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    synchronize(device)
    started, seen = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        order = torch.randperm(len(everything), device=device)
        for rows in torch.split(order, recipe.batch_size)[:-1]:
            images.copy_(everything[rows])
            labels.copy_(classes[rows])
            graph.replay()
            seen += len(rows)
        synchronize(device)
    return seen / (time.perf_counter() - started)
