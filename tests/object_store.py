"""An S3-compatible object store, spoken to by HTTP: a server in a thread of this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer


def server_at(port: int) -> ThreadedMotoServer:
    """Return a server that is not started yet; 0 takes a free port."""
    return ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)


@contextmanager
def running_object_store(server: ThreadedMotoServer | None = None) -> Iterator[str]:
    """Yield the ``s3://`` URL of an empty bucket; the environment names server and credentials.

    What is started inside the block inherits that, as the nodes of a cluster are given it. A server
    of a port of its own may be stopped and another one started meanwhile: it has the same content.
    """
    server = server or server_at(0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "prunesweep",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        bucket = f"sweeps-{uuid4().hex}"
        kind = fsspec.get_filesystem_class("s3")
        kind.clear_instance_cache()  # of another server
        kind().makedirs(bucket)
        try:
            yield f"s3://{bucket}"
        finally:
            kind.clear_instance_cache()
            server.stop()
