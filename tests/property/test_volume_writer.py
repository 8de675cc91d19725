"""The atomic writer: whatever was there before, a volume shows exactly the files asked for, and never a mixture."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from spherelet.volumes.payload import File
from spherelet.volumes.writer import DATA, write

NAMES = st.lists(st.sampled_from(["a", "b", "c", "dir"]), min_size=1, max_size=3).map("/".join)


def no_clash(files: dict[str, File]) -> bool:
    """No path is a directory of another."""
    return not any(other.startswith(path + "/") for path in files for other in files)


FILES = st.dictionaries(
    NAMES, st.builds(File, st.binary(max_size=20), st.sampled_from([0o400, 0o644])), max_size=5
).filter(no_clash)


def shown(volume: Path) -> dict[str, tuple[bytes, int]]:
    """What an application sees, through the links."""
    found = {}
    for base, folders, names in os.walk(volume, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for name in names:
            path = Path(base) / name
            found[str(path.relative_to(volume))] = (path.read_bytes(), path.stat().st_mode & 0o777)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(FILES, min_size=1, max_size=4))
def test_volume_shows_exactly_the_last_files(versions: list[dict[str, File]]) -> None:
    with TemporaryDirectory() as name:
        volume = Path(name)
        for files in versions:
            write(volume, files)
            assert shown(volume) == {path: (file.data, file.mode) for path, file in files.items()}
            assert not write(volume, files), "writing the same again changes nothing"
        assert sum(entry.startswith("..") for entry in os.listdir(volume)) == 2, "one version and its link"


@settings(max_examples=30, deadline=None)
@given(FILES, FILES)
def test_readers_of_the_old_version_keep_it_until_the_swap(old: dict[str, File], new: dict[str, File]) -> None:
    with TemporaryDirectory() as name:
        volume = Path(name)
        write(volume, old)
        before = os.readlink(volume / DATA)
        changed = write(volume, new)
        assert changed == (
            {k: (f.data, f.mode) for k, f in old.items()} != {k: (f.data, f.mode) for k, f in new.items()}
        )
        assert (os.readlink(volume / DATA) != before) == changed


def test_leftovers_of_a_crash_are_cleared(tmp_path: Path) -> None:
    write(tmp_path, {"key": File(b"1", 0o644)})
    (tmp_path / "..2020_half").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2020_half")
    (tmp_path / "stale").symlink_to("..data/stale")
    write(tmp_path, {"key": File(b"2", 0o644)})
    assert (tmp_path / "key").read_bytes() == b"2"
    version = os.readlink(tmp_path / DATA)
    assert sorted(os.listdir(tmp_path)) == sorted([version, DATA, "key"])
