"""Verification of TLS servers, and why it failed, for pika's and redis-py's errors alike."""

from __future__ import annotations

import ssl

# OpenSSL's numbers (x509_vfy.h); the ssl module has no names for them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST, _WRONG_ADDRESS = 62, 64


def verifying_context(ca: str | None) -> ssl.SSLContext:
    """Return a context that verifies a server by a file of certificates, or by the system's.

    Raises:
        OSError: No certificates can be read from the file.
    """
    return ssl.create_default_context(cafile=ca)


def explain_unreadable_ca(ca: str | None, error: OSError, key: str) -> tuple[str, str]:
    # The text of an SSLError is OpenSSL's, with a line number of its source code.
    reason = "it is not PEM" if isinstance(error, ssl.SSLError) else error.strerror
    return (
        f"no certificates can be read from {ca} ({reason})",
        f"set {key}.ca to the ca.pem of `fccl certs`",
    )


def explain_tls_error(error: BaseException, key: str) -> tuple[str, str] | None:
    """Return what is wrong with a server's certificate or TLS, and the remedy.

    Args:
        error: The error of a connection, or one that wraps it.
        key: The section of the configuration, `broker` or `store`.

    Returns:
        None if TLS is not the cause.
    """
    tls = _find(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return _explain_verification(tls, key)
    if isinstance(tls, ssl.SSLError):
        if tls.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "does not speak TLS at this port", f"check scheme and port in {key}.url"
        reason = (tls.reason or type(tls).__name__).replace("_", " ").lower()
        return f"refuses the TLS connection ({reason})", f"check {key}.url and the server's log"
    return None


def _explain_verification(error: ssl.SSLCertVerificationError, key: str) -> tuple[str, str]:
    match error.verify_code:
        case code if code in (_WRONG_HOST, _WRONG_ADDRESS):
            return (
                "has a certificate for another host",
                "use the host name in the certificate, or add this one with `fccl certs --host …`",
            )
        case code if code == _EXPIRED:
            return "has an expired certificate", "renew it with `fccl certs`"
        case code if code == _NOT_YET_VALID:
            return "has a certificate that is not yet valid", "check this machine's clock"
        case _:
            return (
                "has a certificate of an unknown authority",
                f"set {key}.ca to the ca.pem of the server's `fccl certs`",
            )


def _find(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error within an error; libraries wrap it in different ways."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, ssl.SSLError):
            return each
        inner = [getattr(each, "exception", None), *each.args]
        waiting += [part for part in inner if isinstance(part, BaseException)]
        waiting += [each.__cause__, each.__context__]
    return None
