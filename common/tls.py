"""TLS contexts of the cluster: TLS 1.2 or later, both sides verified, one CA."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from common.certificates import note_loaded
from common.settings import TlsFiles


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Context for connecting: presents ``cert``, requires the server's certificate to chain to ``ca``."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(files.cert), str(files.key))
    note_loaded(files.cert)
    return context


def server_context(
    files: TlsFiles, *, client_certificate: bool, more_client_cas: Sequence[Path] = ()
) -> ssl.SSLContext:
    """Context for listening. ``client_certificate=False`` makes it optional (the API also takes tokens).

    Clients of ``more_client_cas`` are let in beside those of ``files.ca``.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    for path in more_client_cas:
        context.load_verify_locations(cafile=str(path))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(files.cert), str(files.key))
    note_loaded(files.cert)
    context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    return context
