"""Faults of AWS in one line each: what is wrong, and the way out."""

from __future__ import annotations

from botocore import exceptions
from botocore.exceptions import ClientError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_SIGNED_OUT = (exceptions.SSOError, exceptions.TokenRetrievalError, exceptions.CredentialRetrievalError)
_ABSENT = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
_UNREACHED = (exceptions.HTTPClientError, exceptions.ConnectionError)
_LOG_IN = "log in again, with `aws sso login` or new AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"


def aws_fault(error: BaseException) -> str:
    """What went wrong at AWS, in words that help."""
    text = " ".join(str(error).split())
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in _EXPIRED:
            return f"AWS: the session has expired; {_LOG_IN}"
        if code in _UNKNOWN:
            return f"AWS: the credentials are refused ({code}); {_LOG_IN}"
        if code in _FORBIDDEN:  # the text may hold an encoded message of a thousand characters
            return f"AWS: refuses {error.operation_name} ({code}); give whoever runs this the right to it"
        return f"AWS: {text}"
    if isinstance(error, _SIGNED_OUT):
        return f"AWS: {text}; {_LOG_IN}"
    if isinstance(error, _ABSENT):
        return f"AWS: {text}; give them with `aws configure`, AWS_PROFILE, or AWS_ACCESS_KEY_ID and its like"
    if isinstance(error, _UNREACHED):
        return f"AWS: cannot be reached ({text}); check the network, and provider.region"
    return f"AWS: {text}"
