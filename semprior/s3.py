"""Amazon's S3 and what speaks its language, found by an address and by the variables that AWS tools know."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

from pyarrow.fs import FileSystem

from semprior.errors import UserError

TIMEOUT = 10.0  # seconds for a connection, and for a silence on it


def s3_filesystem(uri: str) -> FileSystem:
    """The filesystem that ``s3://BUCKET/PATH?QUERY`` is on; nothing is asked of it but, of Amazon's, the region.

    Raises:
        UserError: no bucket is named, or the query is not understood.
        OSError: the region cannot be found out.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    parts = urlsplit(uri)
    if not parts.netloc:
        raise UserError(f"{uri}: names no bucket; write s3://BUCKET/PATH")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    unknown = query.keys() - {"endpoint_override", "region", "scheme", "anonymous"}
    if unknown:
        raise UserError(f"{uri}: '{sorted(unknown)[0]}' is not understood; endpoint_override, region, scheme are")
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = query.get("endpoint_override") or next((os.environ[v] for v in variables if os.environ.get(v)), "")
    scheme, mark, host = endpoint.partition("://")
    region = query.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else resolve_s3_region(parts.netloc)
    return S3FileSystem(
        region=region,
        anonymous=query.get("anonymous", "").lower() in ("1", "true"),
        scheme=query.get("scheme") or (scheme if mark else "https"),
        endpoint_override=(host if mark else endpoint).rstrip("/") or None,
        background_writes=False,
        connect_timeout=TIMEOUT,
        request_timeout=TIMEOUT * 3,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=4),
        allow_delayed_open=True,  # a small file is one request
    )
