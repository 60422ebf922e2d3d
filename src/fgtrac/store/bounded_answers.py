"""What a server of S3 says beside an object's bytes, read up to a limit: a listing's page, an error. s3fs's HTTP."""

from __future__ import annotations

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import HTTPClientError

MAX_ANSWER_BYTES = 1 << 24  # a thousand keys, each as long as may be, have fewer


class BoundedSession(AIOHTTPSession):  # type: ignore[misc]  # it has no types
    """Its own reads such a body whole, however long a stranger makes it."""

    async def send(self, request: Any) -> Any:
        """As there."""
        is_object, request.stream_output = request.stream_output, True  # so that it reads nothing yet
        answer = await super().send(request)
        if is_object and answer.status_code < 300:
            return answer
        data = bytearray()
        try:
            while piece := await answer.raw.content.read(1 << 18):
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    answer.raw.close()
                    raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
        except Exception as error:
            raise HTTPClientError(error=error) from error  # as there, which is tried again
        answer._content = bytes(data)
        return answer
