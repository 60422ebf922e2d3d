"""Objects below one place in a bucket of S3, or of what speaks its protocol: listed, read by range, put on a condition.

The only door to s3fs. No object is ever put without a condition: either nothing lies there yet (If-None-Match: *), or
exactly what was seen there before (If-Match: its ETag), RFC 9110 section 13.1. Amazon S3 knows both since 2024. A
server that overlooks them answers 200 all the same, so `check_conditions` tries it on an object of its own.

    FGTRAC_S3_ENDPOINT, else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL   which server (default: Amazon's)
    FGTRAC_S3_TIMEOUT_S                                              how long an answer may take (default: 30)
    AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_REGION and the like          as in all tools for S3
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

from fgtrac.errors import StorageError
from fgtrac.store.file_digests import Digest, part_bytes
from fgtrac.store.object_answers import BeyondEnd, Overtaken, in_words, said_in, told, whole_size
from fgtrac.store.trace_dir import MAX_SMALL_BYTES, check_size

TIMEOUT_S = 30.0
SLOWEST = 100_000  # bytes a second: what takes longer is given up
MAX_LISTED = 1_000_000  # objects below one place: 100 million entries have fewer
MAX_PAGES = 10_000
PLACES = ".places"  # behind the name of a trace: of the object beside it (`fgtrac.query.found_places`)
_READ_BYTES = 1 << 18
_REMOVED_AT_ONCE = 1000
_URL = re.compile(r"s3:/{1,2}(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\x00-\x20\\\x7f]{1,900})")
_ENDPOINTS = ("FGTRAC_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class FarPath(PosixPath):
    """`s3://BUCKET/KEY` where a path is asked for; a `Path` of it, which has lost a slash, means the same."""

    def __str__(self) -> str:
        return re.sub("^s3:/+", "s3://", super().__str__())


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a place on object storage."""
    return str(path).startswith("s3:/")


def parse_url(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Bucket and key of `s3://BUCKET/PREFIX/NAME.trace`. ValueError, which does not repeat it, for anything else: it
    may hold a password."""
    match = _URL.fullmatch(str(path).rstrip("/"))
    parts = match["key"].split("/") if match is not None else []
    if match is None or not parts[-1].endswith(".trace") or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a trace on object storage is named s3://BUCKET/PREFIX/NAME.trace; this names none")
    return match["bucket"], match["key"]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an object, how many it has in all, and its ETag."""

    data: bytes
    size: int
    etag: str


class Objects:
    """The objects below `s3://BUCKET/KEY/`, by their path relative to it; PLACES is beside it.

    Every method raises StorageError, one line with what to do, where the server does not answer, refuses, or the
    credentials are missing; FileNotFoundError where there is no such bucket.
    """

    def __init__(self, path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> None:
        """ValueError for what is no such place, and where s3fs is not installed."""
        self.bucket, self._key = parse_url(path)
        self.path = FarPath(f"s3:/{self.bucket}/{self._key}")
        said = os.environ if environment is None else environment
        endpoint = next((said[name] for name in _ENDPOINTS if said.get(name)), None)
        self.server = in_words(endpoint) if endpoint else "Amazon S3"
        self._timeout_s = _timeout_s(said)
        self._files = _open(endpoint, said, self._timeout_s)
        self._quote = '"{}"'  # how an ETag is written in If-Match; `check_conditions` finds out
        self.requests = 0  # asked so far,
        self.bytes_read = 0  # and what came back

    def close(self) -> None:
        """Let the connections go."""
        if (creator := getattr(self._files, "_s3creator", None)) is not None:
            self._files.close_session(self._files.loop, creator)
            self._files._s3 = None

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *stopped: object) -> None:
        self.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    def listed(self, prefix: str = "") -> dict[str, Listed]:
        """Every object whose path begins with `prefix`; one request for each thousand. StorageError where a listing
        does not end, or names something else."""
        found, at = {}, f"{self._key}/{prefix}"
        for answer in self._pages(Prefix=at):
            for one in answer.get("Contents", ()):
                key, size, etag = (said_in(one, name, self.server) for name in ("Key", "Size", "ETag"))
                if not key.startswith(at):
                    raise self._wrong(f"lists {key!r:.100} below s3://{self.bucket}/{at}")
                found[key.removeprefix(f"{self._key}/")] = Listed(int(size), etag.strip('"'))
        return found

    def folders(self, prefix: str) -> list[str]:
        """The names that follow `prefix` (which ends in a slash) and have something below them."""
        at = f"{self._key}/{prefix}"
        found = (one for page in self._pages(Prefix=at, Delimiter="/") for one in page.get("CommonPrefixes", ()))
        return [said_in(one, "Prefix", self.server)[len(at) :].rstrip("/") for one in found]

    def _pages(self, **asked: Any) -> Iterator[dict[str, Any]]:
        more: dict[str, Any] = {}
        listed = 0
        for _page in range(MAX_PAGES):
            answer = self._ask("list_objects_v2", "", **asked, **more)
            listed += len(answer.get("Contents", ())) + len(answer.get("CommonPrefixes", ()))
            if listed > MAX_LISTED:
                break
            yield answer
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": said_in(answer, "NextContinuationToken", self.server)}
        raise self._wrong(f"lists no end of objects below s3://{self.bucket}/{asked['Prefix']} ({listed:,} so far)")

    def read(self, path: str, start: int = 0, length: int | None = None) -> Piece:
        """At most `length` of an object's bytes, from `start` on, which has to lie inside it. Without `length` all of
        them, of a note, a tile or a receipt: FormatError where it is longer than any. FileNotFoundError where there is
        none."""
        most = MAX_SMALL_BYTES if length is None else length
        try:
            answer = self._ask("get_object", path, most, Range=f"bytes={start}-{start + most - 1}")
        except BeyondEnd:
            if start:
                raise
            return Piece(b"", 0, "")
        data, etag = answer["Body"], said_in(answer, "ETag", self.server).strip('"')
        self.bytes_read += len(data)
        size = whole_size(answer.get("ContentRange"), start, len(data))
        if size is None:
            raise self._wrong(f"gives another range of s3://{self.bucket}/{self._key}/{path} than was asked for")
        if length is None:
            check_size(path, size)
        return Piece(data, size, etag)

    def sha256(self, path: str) -> str | None:
        """The SHA-256 that was noted with an object as it was put there, None where none was."""
        said = {name.lower(): value for name, value in self._ask("head_object", path).get("Metadata", {}).items()}
        return said.get("sha256")

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes, digest: Digest | None = None, *, replaces: str | None = None) -> str:
        """Put an object where there is none, or in place of the one with the ETag `replaces`; its ETag. Overtaken
        where something else lies there."""
        said = {
            "Body": data,
            "ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        }
        answer = self._ask("put_object", path, **said, **_noted(digest), **self._condition(replaces))
        return str(said_in(answer, "ETag", self.server)).strip('"')

    def put_file(self, path: str, source: Path, digest: Digest, *, replaces: str | None = None) -> str:
        """Put a file: as `put`, in parts where it is long. What a cut upload left of parts is taken back."""
        if digest.size <= part_bytes(digest.size):
            return self.put(path, source.read_bytes(), digest, replaces=replaces)
        upload = said_in(self._ask("create_multipart_upload", path, **_noted(digest)), "UploadId", self.server)
        try:
            parts: list[dict[str, Any]] = []
            with source.open("rb") as file:
                while piece := file.read(part_bytes(digest.size)):
                    answer = self._ask("upload_part", path, UploadId=upload, PartNumber=len(parts) + 1, Body=piece)
                    parts.append({"PartNumber": len(parts) + 1, "ETag": said_in(answer, "ETag", self.server)})
            said = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            answer = self._ask("complete_multipart_upload", path, **said, **self._condition(replaces))
        except BaseException:
            with suppress(StorageError, FileNotFoundError):  # what follows says why; a bucket's rules remove such parts
                self._ask("abort_multipart_upload", path, UploadId=upload)
            raise
        return str(said_in(answer, "ETag", self.server)).strip('"')

    def remove(self, paths: Iterable[str]) -> int:
        """Remove objects, which may have gone already; how many were named."""
        names = list(paths)
        for path in names:
            self._ask("delete_object", path)
        return len(names)

    def _condition(self, replaces: str | None) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": self._quote.format(replaces)}

    def check_conditions(self) -> None:
        """Find out whether the server heeds conditions, on an object beside the trace that is removed again.
        StorageError where it overlooks one, or knows none: two at once could publish over each other there."""
        key = f"{self._key}.probe-{secrets.token_hex(8)}"
        try:
            if not self._answers(key, IfNoneMatch="*") or self._answers(key, IfNoneMatch="*"):
                raise self._unconditional("If-None-Match")
            etag = said_in(self._ask("head_object", "", Key=key), "ETag", self.server).strip('"')
            wrong = hashlib.md5(etag.encode(), usedforsecurity=False).hexdigest()
            for quote in ('"{}"', "{}"):  # RFC 9110 has it in quotes; Ceph up to 16 wants it without
                if self._answers(key, IfMatch=quote.format(wrong)):
                    raise self._unconditional("If-Match")
                if self._answers(key, IfMatch=quote.format(etag)):
                    self._quote = quote
                    return
            raise self._unconditional("If-Match")
        finally:
            self._ask("delete_object", "", Key=key)

    def _answers(self, key: str, **condition: str) -> bool:
        """Whether the object of a probe can be put on a condition."""
        try:
            self._ask("put_object", "", Key=key, Body=b"fgtrac: may be removed\n", **condition)
        except Overtaken:
            return False
        return True

    def _unconditional(self, header: str) -> StorageError:
        return StorageError(
            f"{self.server}, asked for s3://{self.bucket}, does not heed {header}: two pushes could publish over each "
            "other, so nothing is published; use a server that knows conditional writes (Amazon S3 and Ceph do)"
        )

    # -- asking -----------------------------------------------------------------------------------------------------

    def _wrong(self, does: str) -> StorageError:
        return StorageError(f"what answers at {self.server} {does}; see to FGTRAC_S3_ENDPOINT, or name another place")

    def _ask(self, method: str, path: str, most: int = 0, /, **asked: Any) -> dict[str, Any]:
        """What the server says; of an object at most `most` bytes."""
        from fsspec.asyn import sync

        if method != "list_objects_v2":
            asked.setdefault("Key", f"{self._key}{path}" if path == PLACES else f"{self._key}/{path}")
        self.requests += 1
        try:
            answer: dict[str, Any] = sync(self._files.loop, self._answer, method, asked, most)
        except StorageError:
            raise
        except Exception as error:  # s3fs, botocore and aiohttp raise kinds of their own
            raise told(error, method, self.bucket, asked.get("Key", self._key), self.server) from error
        return answer

    async def _answer(self, method: str, asked: dict[str, Any], most: int) -> dict[str, Any]:
        import asyncio

        for tries_left in (2, 1, 0):
            # The client's own time-out does not run while a server lets it wait for "100 Continue".
            limit_s = 2 * self._timeout_s + len(asked.get("Body", b"")) / SLOWEST
            begun = time.monotonic()
            call = self._files._call_s3(method, Bucket=self.bucket, **asked)
            answer: dict[str, Any] = await asyncio.wait_for(call, limit_s)
            if method != "get_object":
                return answer
            try:
                async with answer["Body"] as body:
                    return answer | {"Body": await self._body(body, most, begun + limit_s)}
            except (StorageError, TimeoutError):
                raise
            except Exception:  # cut while it was read: asked for again, and the last one is raised
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    async def _body(self, body: Any, most: int, deadline: float) -> bytes:
        """A body of at most `most` bytes, which come at no less than SLOWEST. StorageError where there are more,
        TimeoutError where they come more slowly."""
        import asyncio

        data = bytearray()
        while True:
            left_s = deadline + len(data) / SLOWEST - time.monotonic()
            piece = await asyncio.wait_for(body.read(min(_READ_BYTES, most + 1 - len(data))), max(left_s, 0))
            if not piece:
                return bytes(data)
            data += piece
            if len(data) > most:
                raise self._wrong(f"sends more than the {most:,} bytes that were asked for")


def _noted(digest: Digest | None) -> dict[str, Any]:
    return {} if digest is None else {"Metadata": {"sha256": digest.sha256}}


def _timeout_s(environment: Mapping[str, str]) -> float:
    """How long an answer may take. ValueError for a setting that is no time."""
    try:
        timeout_s = float(environment.get("FGTRAC_S3_TIMEOUT_S") or TIMEOUT_S)
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s < 86_400:
        raise ValueError(f"FGTRAC_S3_TIMEOUT_S={environment['FGTRAC_S3_TIMEOUT_S']!r:.40} is no number of seconds")
    return timeout_s


def _open(endpoint: str | None, environment: Mapping[str, str], timeout_s: float) -> Any:
    """The client. ValueError where s3fs is not installed."""
    try:
        from s3fs import S3FileSystem
    except ModuleNotFoundError as error:
        raise ValueError(f"a trace on object storage needs the extra s3 ({error}): pip install 'fgtrac[s3]'") from error
    from fgtrac.store.bounded_answers import BoundedSession

    config: dict[str, Any] = {
        "http_session_cls": BoundedSession,
        "connect_timeout": min(timeout_s, 10.0),
        "read_timeout": timeout_s,
        "retries": {"max_attempts": 2, "mode": "standard"},
        "request_checksum_calculation": "when_required",  # the MD5 goes with each put: older servers know no other
        "response_checksum_validation": "when_required",
        "max_pool_connections": 32,
    }
    client: dict[str, Any] = {}
    if endpoint and endpoint.startswith("http://"):
        client["verify"] = False  # no certificate to look at: else a list of authorities is read for each client
    if endpoint:
        config["s3"] = {"addressing_style": "path"}
        if not any(environment.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE")):
            client["region_name"] = "us-east-1"
    elif environment.get("AWS_REGION"):
        client["region_name"] = environment["AWS_REGION"]
    once = {"skip_instance_cache": True, "use_listings_cache": False}
    files = S3FileSystem(endpoint_url=endpoint, config_kwargs=config, client_kwargs=client, **once)
    files.retries = 1  # botocore has tried again already
    return files
