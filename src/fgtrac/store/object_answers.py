"""What object storage answers where it does not do what it is asked, in one line with what to do about it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from fgtrac.errors import StorageError

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_NEEDS = {
    "list_objects_v2": "list the bucket (s3:ListBucket)",
    "get_object": "read (s3:GetObject)",
    "head_object": "read (s3:GetObject)",
    "delete_object": "remove (s3:DeleteObject)",
    "abort_multipart_upload": "take back a part (s3:AbortMultipartUpload)",
}
_WHO = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}
_REGION = {"PermanentRedirect", "301", "307", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_UNABLE = {"NotImplemented", "501"}
_OVERTAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_WITHOUT = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}


class Overtaken(StorageError):
    """The condition of a put does not hold: something else lies there by now."""


class NoBucketError(FileNotFoundError):
    """There is no bucket of that name."""


class BeyondEnd(StorageError):
    """The range that was asked for begins behind the last byte, or the object is empty."""


def said_in(answer: dict[str, Any], name: str, where: str) -> Any:
    """A field of an answer. StorageError where it is not there."""
    if answer.get(name) is None:
        raise StorageError(f"what answers at {where} leaves out {name}, as no S3 does; see to FGTRAC_S3_ENDPOINT")
    return answer[name]


def told(error: Exception, method: str, bucket: str, key: str, where: str) -> Exception:
    """The error to raise in place of what s3fs or botocore raised: FileNotFoundError where there is no such object or
    bucket, Overtaken for a condition that does not hold, StorageError otherwise."""
    cause = error if hasattr(error, "response") else error.__cause__ or error
    code, status, said = _code(cause)
    if code in _OVERTAKEN or status == 412:
        return Overtaken(f"s3://{bucket}/{key} was put there, or changed, by somebody else meanwhile")
    if code == "NoSuchBucket":
        return NoBucketError(f"there is no bucket {bucket} at {where}; make it, or name another")
    if code in ("NoSuchKey", "NoSuchUpload", "404") or (status == 404 and method != "list_objects_v2"):
        return FileNotFoundError(f"there is no object s3://{bucket}/{key}")
    if code in ("InvalidRange", "416") or status == 416:
        return BeyondEnd(f"s3://{bucket}/{key} is shorter than it was, or than what lies beside it says")
    if code in _WHO:
        remedy = (
            "see to AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE and this machine's clock"
        )
        return StorageError(f"{where} refuses the credentials for s3://{bucket} ({code}): {remedy}")
    if code in _REGION:
        region = f"{said.get('Region') or said.get('Endpoint') or 'another region':.80}"
        return StorageError(f"the bucket {bucket} is in {region}, not where it was asked for ({where}): set AWS_REGION")
    if code == "InvalidBucketName":
        return StorageError(f"{where} takes {bucket} for no bucket's name; name another")
    if status == 403 or code in ("AccessDenied", "AllAccessDisabled", "403"):
        needs = _NEEDS.get(method, "write (s3:PutObject)")
        return StorageError(f"{where} refuses to let these credentials {needs} at s3://{bucket}/{key}: allow it there")
    if code in _UNABLE:
        return StorageError(f"{where} cannot do what a push needs ({method}: {code}); use another")
    if code:
        return StorageError(f"{where} answers {code} for s3://{bucket}/{key} ({method}): try again")
    return _unanswered(error, bucket, where)


def _code(cause: BaseException) -> tuple[str, int, dict[str, Any]]:
    """The error's code, the HTTP status, and what else was said; empty where the server has said nothing."""
    response = getattr(cause, "response", None)
    if not isinstance(response, dict):
        return "", 0, {}
    said = response.get("Error", {})
    return f"{said.get('Code', '')!s:.80}", int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)), said


def _unanswered(error: Exception, bucket: str, where: str) -> StorageError:
    """What went wrong where no answer came that is one."""
    kind = type(error).__name__
    if kind in _WITHOUT:
        return StorageError(
            f"there are no credentials for s3://{bucket} ({kind}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    if kind == "ResponseParserError":
        return StorageError(f"what answers at {where} speaks no S3; see to FGTRAC_S3_ENDPOINT or AWS_ENDPOINT_URL")
    if kind in ("NoRegionError", "InvalidRegionError", "UnknownEndpointError"):
        return StorageError(f"no region says where s3://{bucket} is ({kind}): set AWS_REGION")
    if isinstance(error, ValueError):  # botocore: an endpoint that is no URL
        return StorageError(f"no request for s3://{bucket} could be made ({kind}); see to FGTRAC_S3_ENDPOINT")
    return StorageError(
        f"{where} did not answer for s3://{bucket}, or was cut off ({kind}); see to the network and to "
        "FGTRAC_S3_ENDPOINT or AWS_ENDPOINT_URL, then the same command goes on"
    )


def whole_size(said: str | None, start: int, length: int) -> int | None:
    """How many bytes an object has, from Content-Range, or, where a server sent the whole, from what came. None where
    it is another range than that from `start` on."""
    if said is None:
        return None if start else length
    match = _RANGE.fullmatch(said)
    if match is None or int(match[1]) != start or int(match[2]) - start + 1 != length:
        return None
    return int(match[3])


def in_words(endpoint: str) -> str:
    """Scheme, host and port of an endpoint: what stands before or behind them may be secret."""
    try:
        url = urlsplit(endpoint)
        port = f":{url.port}" if url.port else ""
    except ValueError:
        url, port = urlsplit(""), ""
    if (
        url.scheme not in ("http", "https")
        or not url.hostname
        or "@" in endpoint.removeprefix(f"{url.scheme}://{url.netloc}")
    ):
        return "the endpoint that is set"  # perhaps a password with a slash
    return f"{url.scheme}://{f'[{url.hostname}]' if ':' in url.hostname else url.hostname}{port}"
