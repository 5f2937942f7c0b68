"""A remote cache in a bucket of S3, or of what speaks its language (MinIO, R2, Ceph).

Runs in an environment of its own, requirements/s3.txt, which is made when the first stage asks for
it. obstore is the Rust library object_store in one wheel without dependencies, 6 MB; boto3 takes 15
and s3fs more than twenty packages. It reads the names that AWS's own tools read, from the
environment or the machine's role: AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL and so on.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from tpumake.address import Address
from tpumake.store import Lie, NoWrites, Unusable

__all__ = ["S3Store"]

CHUNK = 1 << 20
# Their values are in no message, whatever a library puts there.
KEYS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


class S3Store:
    """See ``Store``."""

    def __init__(self, address: Address) -> None:
        try:
            import obstore
            from obstore import exceptions
            from obstore.store import S3Store as Bucket
        except ImportError as error:
            raise Unusable(f"its environment is damaged ({error})") from None
        self.obstore, self.exceptions = obstore, exceptions
        seconds = timedelta(seconds=address.seconds)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        settings = {"endpoint": endpoint} if endpoint else {}
        try:
            self.bucket = Bucket(
                address.parts.netloc,
                prefix=address.parts.path.strip("/") or None,
                client_options={
                    "connect_timeout": seconds,
                    # How long all may take is the caller's matter, who knows how much it is.
                    "timeout": timedelta(hours=1),
                    # Encrypted unless the endpoint says otherwise, by its first letters.
                    "allow_http": endpoint.startswith("http://"),
                },
                retry_config={"max_retries": 2, "retry_timeout": seconds},
                **settings,
            )
        except exceptions.BaseError as error:
            raise Unusable(_cause(error)) from None

    def get(self, name: str, target: Path, most: int) -> bool:
        """Write what is kept under a name to a file; False if nothing is."""
        try:
            answer = self.obstore.get(self.bucket, name)
            if answer.meta["size"] > most:
                raise Lie(f"{name} is larger than it is told to be")
            with target.open("wb") as file:
                for chunk in answer.stream(min_chunk_size=CHUNK):
                    file.write(chunk)
        except (self.exceptions.NotFoundError, FileNotFoundError):
            return False
        except self.exceptions.BaseError as error:
            raise Unusable(_cause(error)) from None
        return True

    def size(self, name: str) -> int | None:
        """How many bytes are kept under a name; None if there is nothing."""
        try:
            return self.obstore.head(self.bucket, name)["size"]
        except (self.exceptions.NotFoundError, FileNotFoundError):
            return None
        except self.exceptions.BaseError as error:
            raise Unusable(_cause(error)) from None

    def put(self, name: str, source: Path) -> None:
        """Keep a file under a name: it is there when all of it is."""
        try:
            self.obstore.put(self.bucket, name, source)
        except (self.exceptions.PermissionDeniedError, self.exceptions.UnauthenticatedError):
            raise NoWrites("it lets nobody write who has these keys") from None
        except (self.exceptions.NotFoundError, FileNotFoundError):
            raise Unusable("there is no such bucket") from None
        except self.exceptions.BaseError as error:
            raise Unusable(_cause(error)) from None


def _cause(error: Exception) -> str:
    """What the library says, without keys: the end of its first line, behind what it tried."""
    text = (str(error).splitlines() or [type(error).__name__])[0].rpartition(" - ")[2]
    for name in KEYS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "…")
    return text
