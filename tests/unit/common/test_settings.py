"""Config files: typed, strict, and errors that name the cause."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.settings import Settings, TlsFiles, load


class Example(Settings, frozen=True, kw_only=True):
    host: str
    retries_max: int = 3
    tls: TlsFiles | None = None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def test_reads_typed_values(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, 'host="h"\n[tls]\nca="/a"\ncert="/b"\nkey="/c"\n'), Example)
    assert loaded == Example(host="h", tls=TlsFiles(ca=Path("/a"), cert=Path("/b"), key=Path("/c")))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('host="h"\nretry=1\n', "retry"),
        ("host=1\n", "host"),
        ("", "host"),
        ('host="', "TOML"),
        ('host="h"\nretries_max="x"', "retries_max"),
    ],
)
def test_refuses_with_the_cause(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        load(write(tmp_path, text), Example)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml", Example)
