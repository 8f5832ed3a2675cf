"""Real servers out of Debian's packages, unpacked into a folder and never installed.

nginx, and Ceph's object gateway with the monitor and the storage daemon that it needs, all
in memory and on the loopback interface. Where the packages cannot be had, tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from .moto import KEY, SECRET, MotoServer

__all__ = ["ceph_gateway", "nginx"]

NGINX = ("nginx", "nginx-common", "nginx-light")
CEPH = ("ceph-osd", "ceph-mon", "radosgw", "ceph-common")
# Not among what they are said to need, and yet needed.
CEPH_TOO = ("libnl-3-200", "libnl-route-3-200", "libfuse2")


def _cache() -> Path:
    named = os.environ.get("PRECOMPUTED_TEST_SERVERS")
    return Path(named) if named else Path(tempfile.gettempdir()) / "precomputed-test-servers"


def unpacked(name: str, packages: Sequence[str], *more: str) -> Path:
    """A folder with these packages and what they need beyond this system; or skip the test."""
    folder = _cache() / name
    if (folder / "complete").exists():
        return folder / "root"
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("Debian's packages are needed, and there is no apt-get")
    try:
        _unpack(folder, packages, more)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"Debian's packages cannot be had: {error}")
    return folder / "root"


def _unpack(folder: Path, packages: Sequence[str], more: Sequence[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "debs").mkdir(parents=True)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder / "debs", capture_output=True, text=True, check=True, timeout=600
        )
        return done.stdout

    plan = run("apt-get", "install", "-s", "--no-install-recommends", *packages)
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    run("apt-get", "download", "-qq", *dict.fromkeys([*needed, *packages, *more]))
    for package in sorted((folder / "debs").glob("*.deb")):
        run("dpkg", "-x", str(package), str(folder / "root"))
    shutil.rmtree(folder / "debs")
    # Libraries in /lib, which is a link to /usr/lib on the systems that they are for.
    if (folder / "root" / "lib").is_dir():
        shutil.copytree(
            folder / "root" / "lib",
            folder / "root" / "usr" / "lib",
            dirs_exist_ok=True,
            symlinks=True,
        )
    (folder / "complete").touch()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], environment: dict[str, str], log: Path, *, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, user=user)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(url, timeout=2):
                return
        except HTTPError:
            return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.skip(f"the server does not start: {log.read_text(errors='replace')[-2000:]}")


NGINX_CONFIGURATION = """
daemon off;
master_process off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port};
    root {served};
    gzip_static always;
    gunzip on;
    add_header Access-Control-Allow-Origin * always;
    default_type application/octet-stream;
  }}
}}
"""


@contextmanager
def nginx(folder: Path, served: Path) -> Iterator[str]:
    """nginx on the files of a folder, with ``gzip_static``: ``name.gz`` is served as ``name``."""
    root = unpacked("nginx", NGINX)
    port = free_port()
    import getpass

    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(user=getpass.getuser(), folder=folder, port=port, served=served)
    )
    libraries = [str(path) for path in (root / "usr" / "lib").glob("*-linux-gnu")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    command = [str(root / "usr/sbin/nginx"), "-p", str(folder), "-c", str(configuration)]
    with running(command, environment, folder / "nginx.log") as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, folder / "nginx.log", seconds=20)
        yield url


CEPH_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon1}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_allow_insecure_global_id_reclaim = true
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 2000
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_class_dir = {root}/usr/lib/{machine}/rados-classes
plugin_dir = {root}/usr/lib/{machine}/ceph
erasure_code_dir = {root}/usr/lib/{machine}/ceph/erasure-code
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
log_file = {folder}/run/$name.log
crash_dir = {folder}/run
keyring = {folder}/keyring
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{rgw}
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
setuser =
setgroup =
"""

CEPH_USERS = {
    "mon.": "allow *",
    "client.admin": "allow *",
    "osd.0": "allow profile osd",
    "client.rgw": "allow rw",
}


class _Ceph:
    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        library = next((root / "usr" / "lib").glob("*-linux-gnu"))
        libraries = [library, library / "ceph", library / "ceph" / "compressor"]
        self.port = free_port()
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "CEPH_CONF": str(folder / "ceph.conf"),
        }
        for name in ("run", "mon", "osd", "rgw"):
            (folder / name).mkdir()
        (folder / "ceph.conf").write_text(
            CEPH_CONFIGURATION.format(
                fsid="5c0ba0f0-11f8-4f0e-8e0d-5b8a1c1f0001",
                folder=folder,
                root=root,
                machine=library.name,
                mon=free_port(),
                mon1=free_port(),
                rgw=self.port,
            )
        )

    def command(self, name: str, *arguments: str) -> list[str]:
        binary = self.root / "usr" / "bin" / name
        return [str(binary), "-c", str(self.folder / "ceph.conf"), *arguments]

    def run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self.command(name, *arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            pytest.skip(f"{name} fails: {(done.stdout + done.stderr)[-2000:]}")

    def make_keys(self) -> None:
        keyring = str(self.folder / "keyring")
        for number, (name, monitor) in enumerate(CEPH_USERS.items()):
            self.run(
                "ceph-authtool",
                *(() if number else ("--create-keyring",)),
                *(keyring, "--gen-key", "-n", name),
                *("--cap", "mon", monitor, "--cap", "osd", "allow *"),
            )


@contextmanager
def ceph_gateway(folder: Path) -> Iterator[MotoServer]:
    """An S3 server that checks signatures and conditions as real ones do."""
    ceph = _Ceph(folder, unpacked("ceph", CEPH, *CEPH_TOO))
    ports = (folder / "ceph.conf").read_text()
    monitor = ports.split("mon_host = ")[1].splitlines()[0]
    monmap = str(folder / "monmap")
    fsid = ports.split("fsid = ")[1].splitlines()[0]
    tool = [str(ceph.root / "usr/bin/monmaptool"), "--create", "--addv", "a", monitor]
    subprocess.run(
        [*tool, "--fsid", fsid, monmap], env=ceph.environment, check=True, capture_output=True
    )
    ceph.make_keys()
    keyring = str(folder / "keyring")
    ceph.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = folder / f"{name}.out"
            command = ceph.command(name, "-f", *arguments)
            return stack.enter_context(running(command, ceph.environment, log)), log

        start("ceph-mon", "-i", "a")
        ceph.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", fsid)
        start("ceph-osd", "-i", "0")
        gateway, log = start("radosgw", "-n", "client.rgw")
        url = f"http://127.0.0.1:{ceph.port}"
        wait_for(url, gateway, log, seconds=120)
        user = ("--uid=test", "--display-name=test", f"--access-key={KEY}")
        ceph.run("radosgw-admin", "user", "create", *user, f"--secret-key={SECRET}")
        yield MotoServer(url)
