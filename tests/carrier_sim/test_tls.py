"""https and wss, with an authority of the test's own."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twilio.request_validator import RequestValidator

from trunkline.carrier_sim.sim import CarrierSim

from .conftest import serving
from .server import call_in, listen


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


async def test_webhook_and_stream_over_tls(certificate: tuple[Path, Path]) -> None:
    async with serving(certificate) as customer:
        customer.on_stream = listen
        assert customer.stream_url.startswith("wss://127.0.0.1:")
        async with CarrierSim(
            ca_file=certificate[0],
            allow_ws=False,
            habits={"signed-url": "given", "signed-upgrade": "given"},
        ) as sim:
            call = await call_in(sim, customer)
            await sim.wait_for_stream(call)
            await sim.wait_until(lambda: len(customer.events("media")) >= 3)
            sim.hang_up(call)
            await sim.wait_until(lambda: bool(customer.events("stop")))
            signature = customer.upgrades[0]["x-twilio-signature"]
            validator = RequestValidator(sim.auth_token)
            assert validator.compute_signature(customer.stream_url, {}) == signature
            assert sim.errors == []


async def test_a_stranger_s_certificate_is_refused(certificate: tuple[Path, Path]) -> None:
    async with serving(certificate) as customer, CarrierSim() as sim:
        call = await call_in(sim, customer)
        assert await sim.wait_for(call) == "failed"
        assert sim.judge.codes() == [11205]
