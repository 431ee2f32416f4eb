"""Docker's Python client (Debian's python3-docker) against a daemon: what it reads, and how it reads it.

    docker-py.py SOCKET IMAGE

Prints "ok NAME" or "FAILED NAME: why" a line for each check.
"""
import io
import json
import os
import sys
import tarfile
import tempfile
import time

import docker
from docker.types import (
    ContainerSpec, IPAMConfig, IPAMPool, LogConfig, Mount, RestartPolicy, TaskTemplate, Ulimit
)

SOCKET, IMAGE = sys.argv[1:3]
api = docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=60)
# What dockerd 20.10 speaks.
old = docker.APIClient(base_url=f"unix://{SOCKET}", version="1.41", timeout=60)
checks = []


def check(fn):
    checks.append(fn)
    return fn


def make(command, name=None, host=None, **options):
    return api.create_container(
        IMAGE, command, name=name, host_config=api.create_host_config(**(host or {})), **options
    )["Id"]


def started(command="sleep 60", **options):
    id = make(command, **options)
    api.start(id)
    return id


def run(command, **options):
    """Output of a container run to its end."""
    id = started(command, **options)
    api.wait(id)
    return api.logs(id).decode()


def refused(status, words, fn, *args, **options):
    try:
        fn(*args, **options)
    except docker.errors.APIError as e:
        assert e.response.status_code == status, f"{e.response.status_code}: {e.explanation}"
        assert words in e.explanation, e.explanation
    else:
        raise AssertionError(f"not refused: {words}")


def same(actual, expected):
    assert actual == expected, f"{actual!r}, not {expected!r}"


@check
def unset_fields_have_their_zero_value():
    shown = api.inspect_container(make("true"))
    host = shown["HostConfig"]
    for field in ("Binds", "PortBindings", "VolumesFrom", "CapAdd", "Dns", "Links", "Devices", "Ulimits", "PidsLimit"):
        assert host[field] is None, field
    for field in ("AutoRemove", "Privileged", "PublishAllPorts", "ReadonlyRootfs"):
        assert host[field] is False, field
    for field in ("Memory", "MemorySwap", "NanoCpus", "CpuShares", "BlkioWeight", "OomScoreAdj"):
        same(host[field], 0)
    same((host["PidMode"], host["CpusetCpus"], shown["Config"]["Domainname"]), ("", "", ""))
    assert shown["Config"]["Volumes"] is None


@check
def exec_loses_no_first_byte():
    id = started()
    for k in range(20):
        e = api.exec_create(id, ["sh", "-c", f"echo number {k}; exit {k}"])
        same(api.exec_start(e), f"number {k}\n".encode())
        same(api.exec_inspect(e)["ExitCode"], k)
    e = api.exec_create(id, "tty", tty=True)
    same(api.exec_start(e), b"/dev/pts/0\r\n")
    e = api.exec_create(id, ["sh", "-c", "echo o; echo e >&2"])
    same(api.exec_start(e, demux=True), (b"o\n", b"e\n"))


@check
def exec_is_talked_to_on_the_bare_socket():
    e = api.exec_create(started(), "cat", stdin=True)
    s = api.exec_start(e, socket=True)._sock
    s.sendall(b"typed\n")
    s.settimeout(10)
    same(s.recv(100), b"\x01\0\0\0\0\0\0\x06typed\n")
    s.shutdown(1)
    same(s.recv(100), b"")
    same(api.exec_inspect(e)["ExitCode"], 0)


@check
def exec_refusals():
    id = make("sleep 60")
    refused(409, "is not running", api.exec_create, id, "true")
    refused(404, "nosuch", api.exec_start, "nosuch")
    api.start(id)
    refused(400, "bogus-x", api.exec_create, id, "true", detach_keys="bogus-x")
    e = api.exec_create(id, "true", detach_keys="ctrl-p")
    same(api.exec_inspect(e)["DetachKeys"], "EA==")
    e = api.exec_create(id, "no-such-command")
    assert b"executable file not found" in api.exec_start(e)
    same(api.exec_inspect(e)["ExitCode"], 127)
    refused(409, "already run", api.exec_start, e)


@check
def links_are_seen_in_files_and_variables():
    api.start(make("sleep 60", name="pysrv", ports=[5432, (53, "udp")], environment={"PASS": "w"}))
    id = started(["sh", "-c", "env; grep db /etc/hosts"], name="pycli", host={"links": {"pysrv": "my-db"}})
    api.wait(id)
    out = api.logs(id).decode()
    ip = api.inspect_container("pysrv")["NetworkSettings"]["IPAddress"]
    for line in (
        "MY_DB_NAME=/pycli/my-db",
        f"MY_DB_PORT=udp://{ip}:53",
        f"MY_DB_PORT_5432_TCP=tcp://{ip}:5432",
        f"MY_DB_PORT_5432_TCP_ADDR={ip}",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_ENV_PASS=w",
        f"{ip}\tmy-db",
    ):
        assert line in out, f"{line} in {out}"
    same(api.inspect_container(id)["HostConfig"]["Links"], ["/pysrv:/pycli/my-db"])


@check
def any_user_enters_the_root():
    # The image is packed from a directory with mode 0700, as mktemp -d makes it.
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as t:
        root = tarfile.TarInfo("./")
        root.type, root.mode = tarfile.DIRTYPE, 0o700
        t.addfile(root)
        t.add("/bin/busybox", "bin/sh")
    api.import_image_from_data(packed.getvalue(), repository="pyroot", tag="1")
    id = api.create_container("pyroot:1", ["/bin/sh", "-c", "echo in"], user="1000:1001")["Id"]
    api.start(id)
    api.wait(id)
    same(api.logs(id), b"in\n")
    api.remove_container(id)
    api.remove_image("pyroot:1")


@check
def mounts_are_listed():
    source = tempfile.mkdtemp()
    id = make(
        "true",
        host={
            "binds": {source: {"bind": "/b", "mode": "ro"}},
            "mounts": [Mount("/v", "pyvol", type="volume"), Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20)],
            "tmpfs": {"/u": ""},
        },
    )
    mounts = {m["Destination"]: m for m in api.inspect_container(id)["Mounts"]}
    same(sorted(mounts), ["/b", "/t", "/v"])
    same((mounts["/b"]["RW"], mounts["/b"]["Source"]), (False, source))
    same((mounts["/t"]["Type"], mounts["/t"]["Source"], mounts["/t"]["RW"]), ("tmpfs", "", True))
    same(mounts["/v"]["Name"], "pyvol")
    api.remove_container(id)
    api.remove_volume("pyvol")
    os.rmdir(source)


@check
def limits_reach_the_container():
    out = run(
        ["sh", "-c", "ulimit -n; id -G; df -k /dev/shm | tail -1; cat /proc/sys/net/ipv4/ip_forward"],
        host={
            "ulimits": [Ulimit(name="nofile", soft=2048, hard=4096)],
            "group_add": ["1000"],
            "shm_size": 96 << 20,
            "sysctls": {"net.ipv4.ip_forward": "0"},
        },
    ).split("\n")
    same(out[0], "2048")
    assert "1000" in out[1].split() and "98304" in out[2] and out[3] == "0", out
    refused(400, "requested 70,90", make, "true", host={"cpuset_cpus": "70,90"})
    refused(400, "BOGUS", make, "true", host={"cap_add": ["BOGUS"]})
    refused(400, "asdf", make, "true", host={"log_config": LogConfig(type="asdf")})


@check
def filters_take_only_what_there_is():
    refused(400, "status=bogus", api.containers, filters={"status": "bogus"})
    refused(400, "nosuch", api.containers, filters={"nosuch": "1"})


@check
def states_are_told():
    id = started(host={"log_config": LogConfig(type="none")})
    refused(501, "does not support reading", api.logs, id)
    refused(409, "is not paused", api.unpause, id)
    api.pause(id)
    refused(409, "already paused", api.pause, id)
    api.unpause(id)
    api.kill(id, signal="SIGKILL")
    same(api.wait(id)["StatusCode"], 137)
    refused(409, "is not paused", api.unpause, id)
    assert "networks" not in api.stats(id, stream=False)


@check
def attach_before_the_start_sees_all():
    id = make(["sh", "-c", "read x; echo got $x"], stdin_open=True)
    s = api.attach_socket(id, {"stdin": 1, "stdout": 1, "stream": 1})._sock
    api.start(id)
    s.sendall(b"hello\n")
    s.settimeout(10)
    got = b""
    while len(got) < 18:
        got += s.recv(100)
    same(got[8:], b"got hello\n")


@check
def files_go_in_and_out():
    id = make("cat /in/f")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as t:
        f = tarfile.TarInfo("in/f")
        f.size = 3
        t.addfile(f, io.BytesIO(b"abc"))
    assert api.put_archive(id, "/", packed.getvalue())
    api.start(id)
    api.wait(id)
    same(api.logs(id), b"abc")
    data, stat = api.get_archive(id, "/in/f")
    same((stat["name"], stat["size"]), ("f", 3))
    with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as t:
        same(t.extractfile("f").read(), b"abc")
    refused(404, "/nosuch", api.get_archive, id, "/nosuch")


@check
def networks_with_fixed_addresses():
    pool = IPAMPool(subnet="172.29.0.0/16", gateway="172.29.0.254", iprange="172.29.5.0/24")
    api.create_network("pynet", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]))
    endpoint = api.create_endpoint_config(ipv4_address="172.29.5.9", aliases=["al"])
    id = make(
        "sleep 60", host={"network_mode": "pynet"}, networking_config=api.create_networking_config({"pynet": endpoint})
    )
    api.start(id)
    shown = api.inspect_container(id)["NetworkSettings"]["Networks"]["pynet"]
    same((shown["IPAddress"], shown["Gateway"]), ("172.29.5.9", "172.29.0.254"))
    refused(403, "active endpoints", api.remove_network, "pynet")
    api.remove_container(id, force=True)
    api.remove_network("pynet")


@check
def events_are_kept_and_filtered():
    begin = int(time.time())
    id = make("true", name="pyev")
    api.start(id)
    api.wait(id)
    api.remove_container(id)
    until = time.time() + 1
    seen = [
        e["Action"]
        for e in api.events(since=begin, until=int(until) + 1, decode=True, filters={"container": "pyev"})
    ]
    same(seen, ["create", "start", "die", "destroy"])


@check
def images_go_out_and_come_back():
    api.tag(IMAGE, "pysave", tag="1")
    data = b"".join(api.get_image("pysave:1"))
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        same(json.load(t.extractfile("manifest.json"))[0]["RepoTags"], ["pysave:1"])
    before = api.inspect_image("pysave:1")["Id"]
    api.remove_image("pysave:1")
    list(api.load_image(data))
    same(api.inspect_image("pysave:1")["Id"], before)
    api.remove_image("pysave:1")


@check
def networks_are_told_apart_by_scope():
    id = api.create_network("pyscope")["Id"]
    same(api.inspect_network("pyscope", scope="local")["Id"], id)
    for scope in ("swarm", "global"):
        refused(404, "network pyscope not found", api.inspect_network, "pyscope", scope=scope)
    # What is not connected cannot be disconnected, by force either.
    refused(409, "is not connected to network pyscope", api.disconnect_container_from_network, started(), id, force=True)
    api.remove_network("pyscope")


@check
def an_ipv6_pool_without_ipv6_is_kept_idle():
    pool = IPAMPool(subnet="2001:db8:77::/64", gateway="2001:db8:77::ffff")
    api.create_network("pysix", ipam=IPAMConfig(pool_configs=[pool]))
    shown = api.inspect_network("pysix")
    assert {"Subnet": "2001:db8:77::/64", "Gateway": "2001:db8:77::ffff"} in shown["IPAM"]["Config"], shown
    endpoint = {"pysix": api.create_endpoint_config(ipv6_address="2001:db8:77::9")}
    id = make("sleep 60", host={"network_mode": "pysix"}, networking_config=api.create_networking_config(endpoint))
    api.start(id)
    shown = api.inspect_container(id)["NetworkSettings"]["Networks"]["pysix"]
    same((shown["IPAMConfig"], shown["GlobalIPv6Address"]), ({"IPv6Address": "2001:db8:77::9"}, ""))
    api.remove_container(id, force=True)
    api.remove_network("pysix")


@check
def a_commit_shows_its_container():
    id = make("true", hostname="origin")
    image = api.commit(id, changes=['CMD ["other"]'])["Id"]
    shown = old.inspect_image(image)
    same((shown["Container"], shown["ContainerConfig"]["Hostname"]), (id, "origin"))
    same((shown["ContainerConfig"]["Image"], shown["ContainerConfig"]["Cmd"]), (IMAGE, ["true"]))
    same(shown["Config"]["Cmd"], ["other"])
    api.remove_image(image)


@check
def an_exec_that_cannot_run_has_the_code_of_its_version():
    e = api.exec_create(started(), "no-such-command")
    api.exec_start(e)
    same((old.exec_inspect(e)["ExitCode"], api.exec_inspect(e)["ExitCode"]), (126, 127))
    e = api.exec_create(started(), ["sh", "-c", "exit 127"])
    api.exec_start(e)
    same(old.exec_inspect(e)["ExitCode"], 127)


@check
def a_load_fails_in_its_stream():
    for archive in (b"abc", b""):
        told = list(api.load_image(archive))
        same([sorted(m) for m in told], [["error", "errorDetail"]])
        same(told[0]["errorDetail"]["message"], told[0]["error"])


@check
def a_swarm_is_there_when_its_init_ends():
    node = api.init_swarm("127.0.0.1")
    try:
        shown = api.inspect_node(node)
        same((shown["Status"]["State"], shown["Description"]["Hostname"]), ("ready", api.info()["Name"]))
        api.update_node(node, shown["Version"]["Index"], {**shown["Spec"], "Labels": {"a": "b"}})
        same(api.inspect_node(node)["Spec"]["Labels"], {"a": "b"})
        for name in ("word", "words"):
            api.create_secret(name, "x")
        same([len(api.secrets(filters=f)) for f in ({"names": "word"}, {"name": "word"})], [1, 2])
        network = api.create_network("pyover", driver="overlay")["Id"]
        template = TaskTemplate(
            ContainerSpec(IMAGE, ["sleep", "60"]), restart_policy=RestartPolicy(condition="none", window=0)
        )
        service = api.create_service(template, name="pysvc", networks=["pyover"])["ID"]
        spec = api.inspect_service(service)["Spec"]
        same((spec["Networks"], spec["TaskTemplate"].get("Networks")), ([{"Target": network}], None))
        same(spec["TaskTemplate"]["RestartPolicy"]["Window"], 0)
    finally:
        api.leave_swarm(force=True)


for fn in checks:
    try:
        fn()
        print(f"ok {fn.__name__}", flush=True)
    except Exception as e:  # each check is told, whatever goes wrong in it
        print(f"FAILED {fn.__name__}: {type(e).__name__}: {' '.join(str(e).split())}", flush=True)
    for c in api.containers(all=True):
        api.remove_container(c["Id"], force=True, v=True)
print(f"{len(checks)} checks", flush=True)
