"""Where the event log, models and checkpoints are kept."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from settings.group import Group

_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)*/?")


def _is_place(url: str) -> str:
    """A folder or a bucket; nothing that could hold a password, which the output directory would keep."""
    if url.startswith("s3://"):
        if not _S3.fullmatch(url) or {".", ".."} & set(url.split("/")):
            raise ValueError(
                f"{url!r} is no s3://bucket/prefix of letters, digits, '.', '_', '=' and '-'; credentials "
                "and the endpoint come from the AWS environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL ...)"
            )
    elif "://" in url or "\0" in url:
        raise ValueError(f"{url!r} is neither a folder nor s3://bucket/prefix")
    return url


class StorageSettings(Group):
    """The storage that several machines share."""

    url: Annotated[str, AfterValidator(_is_place)] = Field(
        default="",
        description="Where the event log, models, checkpoints and resource samples are kept: a folder that "
        "every machine mounts, or s3://bucket/prefix of an S3-compatible object store, whose credentials and "
        "endpoint come from the AWS environment. The output directory is bound to it at its first use and is "
        "then a cache. Empty: the output directory itself, or what it is bound to.",
    )

    @property
    def place(self) -> str:
        """The same place, whatever the working directory will be."""
        if not self.url or self.is_bucket:
            return self.url.rstrip("/")
        return str(Path(self.url).expanduser().absolute())

    @property
    def is_bucket(self) -> bool:
        """Whether it is an object store."""
        return self.url.startswith("s3://")
