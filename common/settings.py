"""Configuration files: TOML, decoded into frozen ``msgspec.Struct`` types; unknown keys are refused."""

from pathlib import Path
from typing import TypeVar

import msgspec

from common.errors import ConfigError

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every config type. Field names carry their unit last (``lease_duration_s``)."""


class TlsFiles(Settings, frozen=True, kw_only=True):
    """PEM files of one identity. ``ca`` verifies the other side."""

    ca: Path
    cert: Path
    key: Path


def load(path: Path, into: type[T]) -> T:
    """Read ``path`` (TOML) into ``into``. Raises ``ConfigError`` that names the file, the key and the cure."""
    try:
        text = path.read_bytes()
    except OSError as err:
        raise ConfigError(
            f"cannot read config file {path}: {err.strerror}; pass an existing file with --config"
        ) from err
    try:
        return msgspec.toml.decode(text, type=into, dec_hook=_decode)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{path}: {err}; compare with the config section of the component's README") from err
    except ValueError as err:
        raise ConfigError(f"{path}: not valid TOML: {err}") from err


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)
