"""Tests of the private certificate authority: what it signs, what it refuses, and its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from cli.sites.certs import command
from common.errors import ConfigError
from common.tls import certificates
from common.tls.certificates import CertificatePair

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ALL = {"ca.key", "ca.pem", "rabbitmq.key", "rabbitmq.pem", "redis.key", "redis.pem"}


def test_a_server_certificate_is_signed_by_its_authority_and_by_no_other() -> None:
    ca, other = certificates.make_ca(NOW), certificates.make_ca(NOW)
    leaf = x509.load_pem_x509_certificate(
        certificates.issue_certificate(ca, "redis", ["a"], NOW).certificate
    )
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    with pytest.raises(ValueError):
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(other.certificate))


def test_the_authority_may_sign_servers_and_no_further_authorities() -> None:
    ca = x509.load_pem_x509_certificate(certificates.make_ca(NOW).certificate)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature


def test_certificates_begin_a_day_early_and_end_as_asked_but_never_after_their_authority() -> None:
    ca = certificates.make_ca(NOW, days=100)
    short = x509.load_pem_x509_certificate(
        certificates.issue_certificate(ca, "redis", ["a"], NOW, days=7).certificate
    )
    assert short.not_valid_before_utc == NOW - timedelta(days=1)
    assert short.not_valid_after_utc == NOW + timedelta(days=7)
    long = certificates.issue_certificate(ca, "redis", ["a"], NOW, days=825)
    assert certificates.expiry(long.certificate) == certificates.expiry(ca.certificate)


def test_names_and_addresses_are_kept_apart_and_none_is_there_twice() -> None:
    hosts = ["redis", "10.0.0.5", "::1", "*.example.org", "bücher.example", "redis"]
    pem = certificates.issue_certificate(certificates.make_ca(NOW), "redis", hosts, NOW).certificate
    expected = ("redis", "10.0.0.5", "::1", "*.example.org", "xn--bcher-kva.example")
    assert certificates.certificate_hosts(pem) == expected


@pytest.mark.parametrize(
    "host",
    ["", "amqps://x", "host:5671", "10.0.0.300", "1.2.3", "-a", "a..b", "a b", "a" * 64, "a\n"],
)
def test_what_is_no_host_is_refused_by_name(host: str) -> None:
    with pytest.raises(ConfigError, match="is not a host"):
        certificates.check_hosts([host])


def test_the_fingerprint_is_that_of_the_certificate() -> None:
    ca = certificates.make_ca(NOW)
    printed = certificates.fingerprint(ca.certificate)
    assert len(printed) == 95 and printed.count(":") == 31
    assert printed == certificates.fingerprint(b"a comment before it\n" + ca.certificate)
    with pytest.raises(ConfigError, match="cannot be read"):
        certificates.fingerprint(ca.key)


def rsa_key() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


SPOILED: dict[str, tuple[Callable[[CertificatePair], CertificatePair], str]] = {
    "a torn key": (lambda ca: CertificatePair(ca.certificate, ca.key[:60]), "key cannot be read"),
    "an empty key": (lambda ca: CertificatePair(ca.certificate, b""), "key cannot be read"),
    "a torn certificate": (
        lambda ca: CertificatePair(ca.certificate[:90], ca.key),
        "certificate cannot be",
    ),
    "another authority's key": (
        lambda ca: CertificatePair(ca.certificate, certificates.make_ca(NOW).key),
        "does not belong",
    ),
    "a key of another kind": (
        lambda ca: CertificatePair(ca.certificate, rsa_key()),
        "does not belong",
    ),
    "a server's certificate": (
        lambda ca: certificates.issue_certificate(ca, "redis", ["a"], NOW),
        "does not belong to an authority",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_file_that_is_no_authority_is_refused(what: str) -> None:
    spoil, says = SPOILED[what]
    with pytest.raises(ConfigError, match=says) as caught:
        certificates.check_ca(spoil(certificates.make_ca(NOW)), NOW)
    assert "--new-ca" in caught.value.remedy


def test_an_authority_that_ends_soon_is_refused() -> None:
    ca = certificates.make_ca(NOW, days=40)
    certificates.check_ca(ca, NOW)
    with pytest.raises(ConfigError, match="expires on 2026-06-10"):
        certificates.check_ca(ca, NOW + timedelta(days=11))


# The command


def run(*args: str) -> str:
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_closed_and_only_the_authoritys_key_is_closed_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "certs"
    umask = os.umask(0o077)  # containers read the servers' keys under any umask
    try:
        said = run("--dir", str(folder), "--host", "broker.example.org")
    finally:
        os.umask(umask)
    assert {path.name for path in folder.iterdir()} == ALL
    assert mode(folder) == 0o700 and mode(folder / "ca.key") == 0o600
    assert mode(folder / "redis.key") == mode(folder / "rabbitmq.key") == 0o644
    assert certificates.fingerprint((folder / "ca.pem").read_bytes()) in said
    assert "broker.example.org" in said and "broker.ca" in said and "store.ca" in said


def test_a_second_call_keeps_the_authority_and_makes_the_servers_files_anew(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("--dir", str(folder), "--host", "first.example.org")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "kept the authority" in run("--dir", str(folder), "--host", "second.example.org")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in ALL if before[name] == after[name]} == {"ca.pem", "ca.key"}
    expected = ("redis", "localhost", "127.0.0.1", "second.example.org")
    assert certificates.certificate_hosts(after["redis.pem"]) == expected


def test_a_call_that_names_no_host_keeps_those_of_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("--dir", str(folder), "--host", "broker.example.org", "--host", "10.0.0.5")
    run("--dir", str(folder))
    expected = ("rabbitmq", "localhost", "127.0.0.1", "broker.example.org", "10.0.0.5")
    assert certificates.certificate_hosts((folder / "rabbitmq.pem").read_bytes()) == expected


def test_a_new_authority_comes_only_when_it_is_asked_for(tmp_path: Path) -> None:
    run("--dir", str(tmp_path / "certs"))
    first = (tmp_path / "certs/ca.pem").read_bytes()
    assert "wrote the authority" in run("--dir", str(tmp_path / "certs"), "--new-ca")
    assert (tmp_path / "certs/ca.pem").read_bytes() != first


def refused(*args: str) -> str:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(command, args, catch_exceptions=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_half_an_authority_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("--dir", str(folder))
    (folder / "ca.key").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "ca.pem exists, but ca.key does not" in refused("--dir", str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_authority_changes_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("--dir", str(folder))
    (folder / "ca.key").write_text("nonsense")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "key cannot be read" in refused("--dir", str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_others_can_look_into_gets_no_keys(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open/notes.txt").write_text("mine")
    assert "open to other users" in refused("--dir", str(tmp_path / "open"))
    assert mode(tmp_path / "open") == 0o755 and len(list((tmp_path / "open").iterdir())) == 1


def test_a_file_in_the_folders_place_and_a_bad_host_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no directory" in refused("--dir", str(tmp_path / "file"))
    assert "file" in refused("--dir", str(tmp_path / "file" / "below"))
    assert "'a b' is not a host" in refused("--dir", str(tmp_path / "new"), "--host", "a b")
    assert not (tmp_path / "new").exists()
