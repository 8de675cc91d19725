"""When the certificates that this process has loaded end, as a metric: an alert shall come before the end does.

The date is read from the certificate's DER form (RFC 5280, section 4.1) by hand: the standard library decodes only a
peer's certificate, and the library that could would cost each daemon 10 MiB.
"""

import contextlib
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


def not_after(pem: str) -> float:
    """Seconds since 1970 at which the first certificate in ``pem`` ends. Raises ``ValueError`` if it is none."""
    # Words may precede it, and the rest of a chain may follow.
    _, begin, rest = pem.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    der = ssl.PEM_cert_to_DER_cert(begin + body + end)
    try:
        _, certificate, _ = _element(der, 0)
        _, at, _ = _element(der, certificate)
        tag, _, after = _element(der, at)
        if tag == _VERSION:
            at = after
        for _field in ("serialNumber", "signature", "issuer"):
            _, _, at = _element(der, at)
        _, validity, _ = _element(der, at)
        _, _, at = _element(der, validity)
        tag, start, stop = _element(der, at)
        text = der[start:stop].decode("ascii")
        # Two digits of the year mean 1950 to 2049; strptime's mean 1969 to 2068.
        if tag == _UTC_TIME:
            text = ("19" if int(text[:2]) >= 50 else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except IndexError as err:
        raise ValueError("the certificate is cut short") from err


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag of the DER element at ``at``, and where its content starts and ends."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    return tag, start, start + length


class _Loaded(Collector):
    """The last end of each file that was loaded: a file that is newer than its process changes nothing here."""

    def __init__(self) -> None:
        self.ends: dict[str, float] = {}

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "sphere_certificate_expiry_timestamp_seconds",
            "End of a certificate that this process has loaded, by file name.",
            labels=["certificate"],
        )
        for name, end in self.ends.items():
            family.add_metric([name], end)
        yield family


LOADED: Final = _Loaded()
REGISTRY.register(LOADED)


def note_loaded(path: Path) -> None:
    """This process presents the certificate in ``path`` from now on."""
    # OpenSSL has taken it; a form of it that is not understood here must not stop a daemon.
    with contextlib.suppress(ValueError):
        LOADED.ends[path.stem] = not_after(path.read_text())
