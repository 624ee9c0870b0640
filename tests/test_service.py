"""The unit files: what goes into them for an installation, and what systemd's own tools say of them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagedbd import service
from imagedbd.config import Settings, load_settings
from imagedbd.errors import ServiceError

SHIPPED = Path(__file__).resolve().parents[1] / "systemd"
HIGHEST_EXPOSURE = 2.0
EXPOSURE_WITH_BOTH = 2.6
"""With a GPU and a network, each of which takes a part of the walls away."""

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="not installed: systemd-analyze"
)


def settings(tmp_path: Path, **flags: str) -> Settings:
    places = {
        "config_file": str(tmp_path / "config.toml"),
        "data_dir": str(tmp_path / "data"),
        "socket": "/run/user/7/imagedbd/imagedbd.sock",
    }
    return load_settings({**places, **flags}, environ={})


ENVIRONMENT = {"XDG_RUNTIME_DIR": "/run/user/7"}


def installation(tmp_path: Path, environment: dict[str, str] | None = None, **flags: str) -> str:
    files = service.unit_files(settings(tmp_path, **flags), environment or ENVIRONMENT)
    return files["imagedbd.service.d/installation.conf"]


def test_the_service_runs_this_very_interpreter(tmp_path: Path) -> None:
    assert f'\nExecStart=\nExecStart="{sys.executable}" "-P" "-m" "imagedbd" "run"' in installation(tmp_path)


def test_it_may_write_its_index_wherever_that_is(tmp_path: Path) -> None:
    text = installation(tmp_path, data_dir="/mnt/50% full/index")
    assert 'ReadWritePaths="-/mnt/50%% full/index" "-/run/user/7/imagedbd"' in text
    assert 'Environment="IMAGEDBD_DATA_DIR=/mnt/50%% full/index"' in text


def test_the_variables_of_the_shell_that_matter_go_along(tmp_path: Path) -> None:
    shell = {
        **ENVIRONMENT,
        "IMAGEDBD_MODEL": "demo",
        "HF_HOME": "/mnt/hf",
        "EDITOR": "vi",
        "IMAGEDBD_DEBUG": "1",
    }
    text = installation(tmp_path, shell)
    assert 'Environment="IMAGEDBD_MODEL=demo"' in text
    assert 'Environment="HF_HOME=/mnt/hf"' in text
    assert "EDITOR" not in text
    assert "IMAGEDBD_DEBUG" not in text


@pytest.mark.parametrize("name", ['a"b', "a$b", "a\\b", "a\nExecStart=/bin/evil"])
def test_a_place_that_a_unit_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServiceError, match="plain"):
        installation(tmp_path, data_dir=f"/mnt/{name}")


def test_another_socket_is_listened_at(tmp_path: Path) -> None:
    assert "imagedbd.socket.d/installation.conf" not in service.unit_files(settings(tmp_path), ENVIRONMENT)
    files = service.unit_files(settings(tmp_path, socket="/run/user/7/mine.sock"), ENVIRONMENT)
    assert (
        "ListenStream=\nListenStream=/run/user/7/mine.sock\n" in files["imagedbd.socket.d/installation.conf"]
    )


def test_the_network_is_there_only_for_an_index_that_is_elsewhere(tmp_path: Path) -> None:
    assert "imagedbd.service.d/network.conf" not in service.unit_files(settings(tmp_path), ENVIRONMENT)
    files = service.unit_files(settings(tmp_path, store_uri="s3://pictures/index"), ENVIRONMENT)
    assert "PrivateNetwork=no" in files["imagedbd.service.d/network.conf"]


def test_a_gpu_is_let_in_where_there_is_one_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = "imagedbd.service.d/gpu.conf"
    monkeypatch.setattr(service, "has_gpu", (tmp_path / "nvidiactl").exists)
    assert gpu not in service.unit_files(settings(tmp_path), ENVIRONMENT)
    (tmp_path / "nvidiactl").touch()
    assert "PrivateDevices=no" in service.unit_files(settings(tmp_path), ENVIRONMENT)[gpu]
    assert gpu not in service.unit_files(settings(tmp_path, device="cpu"), ENVIRONMENT)


def test_installing_again_takes_away_what_is_no_longer_wanted_and_leaves_what_the_user_added(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "units"
    service.write_units(
        str(folder),
        service.unit_files(settings(tmp_path, store_uri="s3://pictures/index"), ENVIRONMENT, sandbox=False),
    )
    (folder / "imagedbd.service.d" / "override.conf").write_text("[Service]\nNice=5\n")
    (folder / "other.service").write_text("[Service]\n")
    service.write_units(str(folder), service.unit_files(settings(tmp_path), ENVIRONMENT))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "imagedbd.service",
        "imagedbd.socket",
        "imagedbd.service.d/installation.conf",
        "imagedbd.service.d/override.conf",
        "other.service",
    }
    installed = folder / "imagedbd.service.d" / "installation.conf"
    assert stat.S_IMODE(installed.stat().st_mode) == 0o600
    assert service.remove_units(str(folder))
    assert not service.remove_units(str(folder))
    assert (folder / "imagedbd.service.d" / "override.conf").exists()


def test_what_the_user_adds_comes_last() -> None:
    names = [f"{name}.conf" for name in (*service._DROP_INS, "installation")]
    assert max(names) < "override.conf"


@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", [None, "gpu", "network", "no-sandbox", "system"])
def test_systemd_finds_no_fault_with_the_units(tmp_path: Path, drop_in: str | None) -> None:
    folder = tmp_path / "units"
    service.write_units(str(folder), service.unit_files(settings(tmp_path), ENVIRONMENT))
    if drop_in is not None:
        shutil.copy(SHIPPED / "drop-ins" / f"{drop_in}.conf", folder / "imagedbd.service.d")
    if drop_in == "system":
        # Its program is where an administrator puts it, and so is its account.
        own = f"[Service]\nUser=root\nExecStart=\nExecStart={sys.executable}\n"
        (folder / "imagedbd.service.d" / "z.conf").write_text(own)
        (folder / "imagedbd.socket.d").mkdir()
        shutil.copy(SHIPPED / "drop-ins" / "system-socket.conf", folder / "imagedbd.socket.d")
    units = [str(folder / unit) for unit in (service.SERVICE, service.SOCKET)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    # Faults of the machine's own units are told as well.
    ours = [line for line in done.stderr.splitlines() if "imagedbd" in line]
    assert ours == []


@needs_systemd_analyze
@pytest.mark.parametrize(
    ("drop_ins", "highest"),
    [
        ((), HIGHEST_EXPOSURE),
        (("gpu",), HIGHEST_EXPOSURE),
        (("network",), HIGHEST_EXPOSURE),
        (("system",), HIGHEST_EXPOSURE),
        (("gpu", "network"), EXPOSURE_WITH_BOTH),
    ],
    ids=lambda value: "+".join(value) or "alone" if isinstance(value, tuple) else "",
)
def test_the_daemon_is_hardly_exposed(tmp_path: Path, drop_ins: tuple[str, ...], highest: float) -> None:
    unit = shutil.copy(SHIPPED / service.SERVICE, tmp_path)
    folder = tmp_path / f"{service.SERVICE}.d"
    folder.mkdir()
    for name in drop_ins:
        shutil.copy(SHIPPED / "drop-ins" / f"{name}.conf", folder)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= highest


def test_the_page_of_the_service_says_how_exposed_it_is_at_most() -> None:
    page = " ".join((SHIPPED.parent / "docs" / "service.md").read_text().split())
    assert f"at {HIGHEST_EXPOSURE} or less" in page
    assert f"{EXPOSURE_WITH_BOTH} with both" in page


def test_every_exit_that_trying_again_does_not_mend_is_final() -> None:
    unit = (SHIPPED / service.SERVICE).read_text()
    assert re.search(r"^Restart=on-failure$", unit, re.MULTILINE)
    found = re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert found
    assert set(found[1].split()) == {"2", "75", "78"}


def test_a_machine_without_systemd_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServiceError, match=re.escape(f"{sys.executable} -P -m imagedbd run")):
        service.UserManager(os.environ)
