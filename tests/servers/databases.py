"""PostgreSQL and MariaDB out of Debian's packages, on the loopback interface.

In folders of their own, as a user without rights where the tests run as root, since
PostgreSQL refuses that one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .debian import free_port, running, unpacked

__all__ = ["mariadb", "postgresql"]


@contextmanager
def postgresql() -> Iterator[str]:
    """``host:port`` of a PostgreSQL where user ``test`` has database ``postgres``."""
    programs, environment = _postgresql_programs()
    with _folder() as folder:
        data, port = folder / "data", free_port()
        made = [str(programs / "initdb"), "-D", str(data), "-U", "test", "-A", "trust"]
        _as_nobody([*made, "--no-sync", "--no-locale", "-E", "UTF8"], environment, folder)
        command = [
            str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
        ]  # fmt: skip
        log = folder / "log"
        with running(command, environment, log, user=_nobody()) as process:
            ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
            _wait(lambda: not subprocess.run(ready, env=environment).returncode, process, log)
            yield f"127.0.0.1:{port}"


def _postgresql_programs() -> tuple[Path, dict[str, str]]:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if installed:
        return installed[-1].parent, dict(os.environ)
    root = unpacked("postgresql", ("postgresql",))
    (program,) = root.glob("usr/lib/postgresql/*/bin/postgres")
    return program.parent, _environment(root)


@contextmanager
def mariadb() -> Iterator[str]:
    """``host:port`` of a MariaDB where everybody may do everything."""
    root = unpacked("mariadb", ("mariadb-server",))
    environment = _environment(root)
    with _folder() as folder:
        data, port, log = folder / "data", free_port(), folder / "log"
        (data / "test").mkdir(parents=True)
        for each in (data, data / "test"):
            _give_away(each)
        command = [
            str(root / "usr/sbin/mariadbd"), "--no-defaults", "--skip-grant-tables",
            f"--datadir={data}", f"--basedir={root / 'usr'}", f"--socket={folder / 'socket'}",
            f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder / 'pid'}",
            f"--lc-messages-dir={root / 'usr/share/mysql'}",
            f"--plugin-dir={root / 'usr/lib/mysql/plugin'}",
        ]  # fmt: skip
        with running(command, environment, log, user=_nobody()) as process:
            _wait(lambda: _listens(port), process, log)
            yield f"127.0.0.1:{port}"


def _environment(root: Path) -> dict[str, str]:
    libraries = [str(path) for path in (root / "usr" / "lib").glob("*-linux-gnu")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def _nobody() -> str | None:
    return "nobody" if os.geteuid() == 0 else None


def _give_away(path: Path) -> None:
    if (user := _nobody()) is not None:
        shutil.chown(path, user)


@contextmanager
def _folder() -> Iterator[Path]:
    # Not pytest's, which nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="precomputed-database-") as name:
        _give_away(Path(name))
        yield Path(name)


def _as_nobody(command: list[str], environment: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        command, env=environment, cwd=folder, user=_nobody(), capture_output=True, text=True
    )
    if done.returncode:
        pytest.fail(f"{command[0]} fails: {done.stderr[-2000:]}")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _wait(
    is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready():
            return
        time.sleep(0.2)
    pytest.fail(f"the server does not start: {log.read_text(errors='replace')[-2000:]}")
