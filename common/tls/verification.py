"""Why a TLS connection failed, in words that pika's and redis' errors share."""

from __future__ import annotations

import ssl

# OpenSSL's numbers (x509_vfy.h); the ssl module has no names for them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST, _WRONG_ADDRESS = 62, 64


def verifying_context(ca: str | None) -> ssl.SSLContext:
    """Settings that verify a server by these certificates (PEM); by the system's without.

    Raises:
        OSError: None can be read from there.
    """
    return ssl.create_default_context(cafile=ca)


def explain_unreadable_ca(ca: str | None, error: OSError, key: str) -> tuple[str, str]:
    """What is wrong with a file of certificates, and the remedy."""
    # An SSLError's own text is OpenSSL's, with the line of its source.
    reason = "no PEM" if isinstance(error, ssl.SSLError) else error.strerror
    return (
        f"no certificates can be read from {ca} ({reason})",
        f"set {key}.ca to the ca.pem of `fccl certs`",
    )


def explain_tls_error(error: BaseException, key: str) -> tuple[str, str] | None:
    """What is wrong with a server's certificate or its TLS, and the remedy.

    Args:
        error: What a connection raised, or what wraps it.
        key: The section of the configuration: `broker` or `store`.

    Returns:
        None where TLS is not to blame.
    """
    found = _find(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _distrust(found, key)
    if isinstance(found, ssl.SSLError):
        if found.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "speaks no TLS at this port", f"check {key}.url: its scheme against its port"
        reason = (found.reason or type(found).__name__).replace("_", " ").lower()
        return f"gives no TLS connection ({reason})", f"check {key}.url, and the server's log"
    return None


def _distrust(error: ssl.SSLCertVerificationError, key: str) -> tuple[str, str]:
    match error.verify_code:
        case code if code in (_WRONG_HOST, _WRONG_ADDRESS):
            return (
                "shows a certificate that is for another host",
                "name the host that it is for, or add this one: `fccl certs --host …`",
            )
        case code if code == _EXPIRED:
            return "shows a certificate that has expired", "`fccl certs` makes it anew"
        case code if code == _NOT_YET_VALID:
            return "shows a certificate that is not yet valid", "check this machine's clock"
        case _:
            return (
                "shows a certificate that is not from this authority",
                f"set {key}.ca to the ca.pem of the server's `fccl certs`",
            )


def _find(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error inside one; libraries wrap it once or twice, each in its own way."""
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
