"""Where a run keeps what its dashboard hands out: the run folder, or an S3-compatible bucket.

Both are stores of `optuna.artifacts`, so that the dashboard and any tool of Optuna's read them.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from objectives.runners.runner import RuntimeUnavailable
from search_spaces.durable import durable_file
from search_spaces.errors import InputError
from search_spaces.regular import open_regular, read_regular
from tuner.study.config import ArtifactsSection, S3Section

_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 60, 3


class ArtifactStoreError(OSError):
    """A bucket cannot be read or written now."""


class Artifacts(Protocol):
    """A store of Optuna's that takes files, too."""

    def put(self, artifact_id: str, path: Path) -> None:
        """Has the artifact hold what the file holds; nothing is done where it does already."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As `optuna.artifacts`."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """As `optuna.artifacts`."""

    def remove(self, artifact_id: str) -> None:
        """As `optuna.artifacts`."""


def open_artifacts(section: ArtifactsSection, folder: Path, run_id: str) -> Artifacts:
    """Opens the artifact store of a run; nothing is asked of a bucket yet.

    Args:
        section: Of the study file.
        folder: In the run folder, where no other store is named; made by the first file.
        run_id: Id of the run; runs may share a bucket.

    Raises:
        RuntimeUnavailable: The `s3` extra is not installed.
        InputError: The settings describe no client.
    """
    return FolderArtifacts(folder) if section.s3 is None else BucketArtifacts(section.s3, run_id)


def check_artifacts(section: ArtifactsSection, run_id: str) -> None:
    """Writes to a bucket, reads it back and cleans up, before a study works for hours.

    Raises:
        RuntimeUnavailable: The `s3` extra is not installed.
        InputError: It cannot be done.
    """
    if section.s3 is None:
        return
    store = BucketArtifacts(section.s3, run_id)
    try:
        store.check()
    except ArtifactStoreError as error:
        raise InputError(f"{error}; check bucket, endpoint_url and credentials") from None


class FolderArtifacts(FileSystemArtifactStore):
    """Files of a folder: hard links to those of the run where the file system can, else copies."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def put(self, artifact_id: str, path: Path) -> None:
        """Has the artifact hold what the file holds, as a whole or not at all."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"artifact folder {self._folder}: cannot be made ({error.strerror}); choose another"
            ) from None
        target = self._folder / artifact_id
        if target.exists() and (target.samefile(path) or filecmp.cmp(path, target, shallow=False)):
            return
        with durable_file(target, mode=None) as draft:  # a link's permission bits are those of the run's file
            draft.unlink()
            try:
                os.link(path, draft)
            except OSError:
                with open_regular(path) as source, draft.open("wb") as copy:
                    shutil.copyfileobj(source, copy)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As `optuna.artifacts`; of regular files alone, since what the folder holds is handed out to a browser."""
        try:
            return open_regular(self._get_filepath(artifact_id))
        except (OSError, InputError) as error:
            raise ArtifactNotFound(f"artifact {artifact_id}: {error}") from None


class BucketArtifacts(Boto3ArtifactStore):
    """Objects ``PREFIX/RUN_ID/ARTIFACT_ID`` of a bucket; credentials come from where boto3 looks for them."""

    def __init__(self, section: S3Section, run_id: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise RuntimeUnavailable(
                "artifacts.s3: the Python package 'boto3' is missing; install the extra: `pip install tuner[s3]`"
            ) from None
        self._root = "/".join(part for part in (section.prefix.strip("/"), run_id) if part)
        self._where = f"s3://{section.bucket}/{self._root}"
        retries = {"max_attempts": _ATTEMPTS, "mode": "standard"}
        limits = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries=retries)
        try:
            client = boto3.client("s3", endpoint_url=section.endpoint_url, config=limits)
        except Exception as error:  # botocore's, and ValueError for an endpoint that it does not take
            raise InputError(f"artifacts.s3: {error}; check endpoint_url and boto3's settings") from None
        super().__init__(section.bucket, client, avoid_buf_copy=True)

    def check(self) -> None:
        """Looks for, writes, reads and removes an object."""
        target = {"Bucket": self.bucket, "Key": self._key("check")}
        with self._named():
            self._digest(target["Key"])
            self.client.put_object(**target, Body=b"")
            self.client.get_object(**target)["Body"].close()
            self.client.delete_object(**target)

    def put(self, artifact_id: str, path: Path) -> None:
        """Has the artifact hold what the file holds; its digest lies beside it, so that nothing is sent twice."""
        digest, key = hashlib.sha256(read_regular(path, None)).hexdigest(), self._key(artifact_id)
        with self._named():
            if self._digest(key) != digest:
                self.client.upload_file(str(path), self.bucket, key, ExtraArgs={"Metadata": {"sha256": digest}})

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As `optuna.artifacts`."""
        return super().open_reader(self._key(artifact_id))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """As `optuna.artifacts`."""
        super().write(self._key(artifact_id), content_body)

    def remove(self, artifact_id: str) -> None:
        """As `optuna.artifacts`."""
        super().remove(self._key(artifact_id))

    def _key(self, artifact_id: str) -> str:
        return f"{self._root}/{artifact_id}"

    def _digest(self, key: str) -> str | None:
        """What an object that exists was made of."""
        from botocore.exceptions import ClientError

        try:
            found: str | None = self.client.head_object(Bucket=self.bucket, Key=key)["Metadata"].get("sha256")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return found

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Says where it was that something went wrong."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise ArtifactStoreError(f"artifacts.s3: {self._where}: {error}") from None
