"""TLS: the certificate is checked for the name in the URL, though an address is connected to."""

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from streamer.errors import SourceError
from streamer.sources import FetchPolicy, open_source
from streamer.sources.transport import GuardedTransport
from tests.clips import render

POLICY = FetchPolicy(networks=("127.0.0.1",))


class Server(HTTPServer):
    body = b""
    hosts: list[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)


def certificate(name: str, folder: Path) -> Path:
    """A certificate for `name`, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    path = certificate("video.test", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    clip = render(tmp_path / "x.mp4", 10, movflags="faststart")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.body, server.hosts = clip.read_bytes(), []
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def frames(url: str) -> int:
    transport = GuardedTransport(POLICY, resolve=lambda host, port: ["127.0.0.1"])
    with open_source(url, policy=POLICY, transport=transport) as source:
        found = len(list(source.frames()))
    transport.close()
    return found


def test_the_certificate_of_the_name_is_accepted(server: Server) -> None:
    port = server.server_address[1]
    assert frames(f"https://video.test:{port}/x.mp4") == 2
    assert server.hosts == [f"video.test:{port}"]


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1"])
def test_another_certificate_is_refused(server: Server, host: str) -> None:
    with pytest.raises(SourceError, match=f"cannot connect to {host}"):
        frames(f"https://{host}:{server.server_address[1]}/x.mp4")
    assert server.hosts == []
