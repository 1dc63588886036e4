"""What must be proved and measured where there is a GPU: `python -m benchmarks.gpu`."""
