"""An S3 service on loopback, kept in memory: what a remote table is tested against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

REGION = "us-east-1"


@dataclass
class S3:
    """A running service.

    :param options: what LanceDB needs to be told to reach it.
    """

    endpoint: str
    options: dict[str, str]
    _names: Iterator[int] = field(default_factory=itertools.count)

    def bucket(self) -> str:
        """The URI of a place in a new, empty bucket."""
        import boto3

        name = f"bucket-{next(self._names)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 - the service takes any
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}/index"


@contextmanager
def s3_service() -> Iterator[S3]:
    from moto.server import ThreadedMotoServer  # a second that only its users should pay

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        yield S3(
            endpoint,
            {
                "aws_endpoint": endpoint,
                "allow_http": "true",
                "aws_region": REGION,
                "aws_access_key_id": "key",
                "aws_secret_access_key": "secret",
            },
        )
    finally:
        server.stop()
