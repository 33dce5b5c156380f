#!/usr/bin/env python3
"""A storm over what is ours on the host, while connections live and attackers probe.

Every 100 ms somebody flushes the rule set, flushes iptables, takes a bridge's address away, or takes a
bridge or a container's link down: each kind by itself, then all at once. All the time 20 connections
exchange bytes (10 through a published port, 10 between containers) and attackers try what is closed, over
IPv4 and IPv6: a neighbour that routes to containers' addresses and to the host's 127.0.0.1, a container on
another network, and a container that sends as another one. Printed per kind: how long until all was as
before (from when a program that flushes was started: what it takes itself counts), the longest silence of a connection, and how many of the attackers' attempts got through.

Ends with status 1 if a connection died, a probe got through, or something was not healed.
"""

import argparse
import collections
import errno
import fcntl
import json
import os
import pathlib
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

from latency import Engine
from ports import enter

OUTSIDE, NEIGHBOUR, NEIGHBOUR6 = "198.51.100.2", "203.0.113.2", "2001:db8:71::2"
BRIDGE, GATEWAY = "front0", "10.80.0.1"
ECHO, PEER, SPOOFER, ECHO6 = "10.80.0.2", "10.80.0.3", "10.80.0.4", "fd80::2"
PUBLISHED, ON_LOOPBACK, OPEN, CLOSED, DATAGRAMS = 8000, 8002, 7000, 7001, 7003
CONNECTIONS = 10
KINDS = ("nft flush ruleset", "iptables -F, -t nat -F", "bridge address deleted", "bridge down", "container link down",
         "all at once")
# linux/sockios.h, linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR, SIOCSIFADDR = 0x8913, 0x8914, 0x8915, 0x8916
IFF_UP = 1
PATIENCE = 5
# How long an attempt to connect may take until it counts as failed; others are begun meanwhile.
ATTEMPT = 0.5


class Child:
    """A function in a process and a network namespace of its own; its result comes back as JSON."""

    def __init__(self, namespace, task, *arguments):
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.read)
                enter(namespace)
                os.write(write, json.dumps(task(*arguments)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(write)

    def result(self):
        data = b""
        while piece := os.read(self.read, 65536):
            data += piece
        os.close(self.read)
        os.waitpid(self.pid, 0)
        return json.loads(data) if data else None

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def echo():
    """Answers on both ports, in the container."""
    selector = selectors.DefaultSelector()
    for port in (OPEN, CLOSED, ON_LOOPBACK):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
        selector.register(listener, selectors.EVENT_READ, True)
    while True:
        for key, _ in selector.select():
            try:
                if key.data:
                    selector.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
                elif data := key.fileobj.recv(4096):
                    key.fileobj.sendall(data)
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            except OSError:
                selector.unregister(key.fileobj)


def live(address, port, seconds):
    """Long-lived connections: how many live to the end, and the longest silence in milliseconds."""
    alive, worst, rounds = [], 0.0, 0
    for _ in range(CONNECTIONS):
        connection = socket.create_connection((address, port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        alive.append(connection)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for connection in list(alive):
            begun = time.monotonic()
            try:
                connection.sendall(b"12345678")
                if connection.recv(64) != b"12345678":
                    raise OSError("no answer")
            except OSError:
                alive.remove(connection)
            worst = max(worst, time.monotonic() - begun)
        rounds += 1
        time.sleep(0.005)
    return {"alive": len(alive), "worst": worst * 1000, "rounds": rounds}


def probe(closed, open_, seconds):
    """Tries what is closed, over and over; and what is open, to know that it can tell.

    Attempts do not wait for each other: what is open for some milliseconds only is seen as well.
    """
    found = {"tried": 0, "through": 0, "control": 0}
    under_way = collections.deque()
    selector = selectors.DefaultSelector()
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        for place in (*closed, open_):
            attempt = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
            attempt.setblocking(False)
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            found["tried"] += place is not open_
            if attempt.connect_ex(tuple(place)) == errno.EINPROGRESS:
                selector.register(attempt, selectors.EVENT_WRITE, place is open_)
                under_way.append((now + ATTEMPT, attempt))
            else:
                attempt.close()
        for key, _ in selector.select(0.005):
            if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                found["control" if key.data else "through"] += 1
            selector.unregister(key.fileobj)
            key.fileobj.close()
        while under_way and (under_way[0][0] < now or under_way[0][1].fileno() < 0):
            _, late = under_way.popleft()
            if late.fileno() >= 0:
                selector.unregister(late)
                late.close()
        time.sleep(0.005)
    return found


def frame(macs, addresses, text):
    """A datagram to DATAGRAMS of the first address from the second, with those hardware addresses."""
    body = struct.pack("!HHHH", 9, DATAGRAMS, 8 + len(text), 0) + text
    to, by = (socket.inet_aton(address) for address in addresses)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0) + by + to
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", 0xFFFF ^ total) + head[12:]
    hardware = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in macs)
    return hardware + b"\x08\x00" + head + body


def spoof(macs, seconds):
    """Sends as its neighbour, by address, by hardware address and by both; and as itself."""
    own, victim, target = macs
    frames = [frame((target, own), (ECHO, PEER), b"spoofed"), frame((target, victim), (ECHO, PEER), b"spoofed"),
              frame((target, victim), (ECHO, SPOOFER), b"spoofed"), frame((target, own), (ECHO, SPOOFER), b"honest")]
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind(("eth0", 0))
    sent = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one in frames:
            try:
                link.send(one)
                sent += one is not frames[-1]
            except OSError:
                pass
        time.sleep(0.002)
    return {"tried": sent}


def hear(seconds):
    """What came of that, in the container that it was for."""
    heard = {"through": 0, "control": 0}
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("", DATAGRAMS))
    end = time.monotonic() + seconds + 0.5
    while (left := end - time.monotonic()) > 0:
        ear.settimeout(left)
        try:
            heard["control" if ear.recv(64) == b"honest" else "through"] += 1
        except OSError:
            pass
    return heard


class Host:
    """The engine's host, from inside: breaks things and looks whether they are whole."""

    def __init__(self, link, translates):
        self.link = link
        self.translates = translates
        self.text = self.listed()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def ioctl(self, number, name, data=b""):
        return fcntl.ioctl(self.socket, number, struct.pack("16s24s", name.encode(), data))[16:]

    def flags(self, name):
        return struct.unpack("H", self.ioctl(SIOCGIFFLAGS, name)[:2])[0]

    def down(self, name):
        self.ioctl(SIOCSIFFLAGS, name, struct.pack("H", self.flags(name) & ~IFF_UP))

    def strike(self, kind):
        """When it began, or when it was done where no program does it."""
        every = kind == "all at once"
        begun = time.monotonic()
        programs = every or kind.startswith(("nft", "iptables"))
        if every or kind == "nft flush ruleset":
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        if every or kind.startswith("iptables"):
            for table in ("filter", "nat"):
                subprocess.run(["iptables", "-t", table, "-F"], capture_output=True)
        # The quick ones last, by ioctls.
        if every or kind == "bridge address deleted":
            nothing = struct.pack("HH4s", socket.AF_INET, 0, bytes(4))
            self.ioctl(SIOCSIFADDR, BRIDGE, nothing)
        if every or kind == "container link down":
            self.down(self.link)
        if every or kind == "bridge down":
            self.down(BRIDGE)
        return begun if programs else time.monotonic()

    def whole(self):
        try:
            address = self.ioctl(SIOCGIFADDR, BRIDGE)[4:8]
        except OSError:
            return False
        up = all(self.flags(name) & IFF_UP for name in (BRIDGE, self.link))
        return up and socket.inet_ntoa(address) == GATEWAY and (not self.translates or self.translated())

    def translated(self):
        """A new connection to the published port is not refused."""
        with socket.socket() as attempt:
            attempt.settimeout(0.02)
            return attempt.connect_ex((OUTSIDE, PUBLISHED)) == 0

    def listed(self):
        """Our tables of nf_tables, without counters."""
        tables = [("inet", "portolan"), ("bridge", "portolan")]
        words = [["nft", "--stateless", "list", "table", *table] for table in tables]
        return [subprocess.run(one, capture_output=True, text=True).stdout for one in words]

    def rules(self):
        """All of the rule set is there."""
        return self.listed() == self.text


def storm(kind, link, seconds, backend):
    """Strikes every 100 ms: times until it was whole again in milliseconds, or None where it never was."""
    # Rules of nf_tables of ours nobody can flush; those of iptables are gone until they are back.
    host = Host(link, backend == "iptables" and kind.startswith(("nft", "iptables", "all")))
    healed, rules = [], True
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        struck = host.strike(kind)
        limit = struck + PATIENCE
        while not host.whole() and time.monotonic() < limit:
            time.sleep(0.0005)
        now = time.monotonic()
        healed.append((now - struck) * 1000 if now < limit else None)
        if kind.startswith("nft"):
            # Ours nobody else can flush: there is no moment without them.
            rules &= host.rules()
        time.sleep(max(0.0, begun + 0.1 - time.monotonic()))
    return {"healed": healed, "rules": rules and host.rules()}


class Lab:
    """The engine, its containers and the hosts around it."""

    def __init__(self, arguments):
        self.docker = arguments.docker
        self.backend = arguments.backend
        self.engine = Engine("storm", [arguments.portolan, "daemon", "--firewall-backend", arguments.backend])
        self.netns = f"/run/netns/{self.engine.netns}"
        self.hosts = {}
        self.children = []
        self.inside = {}
        while subprocess.run([self.docker, "--host", self.engine.socket, "version"], capture_output=True).returncode:
            if self.engine.process.poll() is not None:
                raise SystemExit((self.engine.home / "log").read_text())
            time.sleep(0.05)
        self.run("import", "-c", 'CMD ["sh"]', arguments.image, "busybox:latest")
        for name, *subnets in (("front", "10.80.0.0/24", "fd80::/64"), ("back", "10.81.0.0/24", "fd81::/64")):
            bridge = f"com.docker.network.bridge.name={name}0"
            flags = [word for subnet in subnets for word in ("--subnet", subnet)]
            self.run("network", "create", "--ipv6", *flags, "-o", bridge, name)
        ports = ["-p", f"{PUBLISHED}:{OPEN}", "-p", f"127.0.0.1:{ON_LOOPBACK}:{ON_LOOPBACK}"]
        for name, network, more in (
            ("echo", "front", ["--ip", ECHO, "--ip6", ECHO6, *ports]), ("peer", "front", ["--ip", PEER]),
            ("spoofer", "front", ["--ip", SPOOFER]), ("other", "back", []),
        ):
            self.run("run", "-d", "--name", name, "--network", network, *more, "busybox", "sleep", "3600")
            self.inside[name] = f"/proc/{self.run('inspect', '-f', '{{.State.Pid}}', name)}/ns/net"
        self.wire("client", OUTSIDE)
        self.wire("neighbour", NEIGHBOUR)
        for route in ("10.80.0.0/24", "10.81.0.0/24", f"{OUTSIDE}/32"):
            words = ["ip", "-n", self.hosts["neighbour"], "route", "add", route, "via", NEIGHBOUR]
            subprocess.run(words, check=True)
        self.attack_by_routes()
        self.children.append(Child(self.inside["echo"], echo))

    def attack_by_routes(self):
        """The neighbour, whose own lo is down, routes 127.0.0.1 to the host (CVE-2020-8558), and IPv6 to the containers."""
        far, near = (["ip", "-n", netns] for netns in (self.hosts["neighbour"], self.engine.netns))
        for words in (
            [*far, "address", "add", f"{NEIGHBOUR6[:-1]}1/64", "dev", "up0", "nodad"],
            [*near, "address", "add", f"{NEIGHBOUR6}/64", "dev", "neighbour", "nodad"],
            [*far, "route", "add", "fd80::/15", "via", NEIGHBOUR6],
            [*far, "route", "add", "127.0.0.1/32", "via", NEIGHBOUR],
            ["nsenter", f"--net=/run/netns/{self.hosts['neighbour']}", "sysctl", "-qw",
             "net.ipv4.conf.all.route_localnet=1"],
        ):
            subprocess.run(words, check=True)

    def run(self, *words):
        words = [self.docker, "--host", self.engine.socket, *words]
        result = subprocess.run(words, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{' '.join(words)}: {result.stderr}")
        return result.stdout.strip()

    def wire(self, name, address):
        """A host with a link to the engine's."""
        host = self.hosts[name] = f"{self.engine.netns}-{name}"
        subprocess.run(["ip", "netns", "add", host], check=True)
        here, there = ["ip", "-n", self.engine.netns], ["ip", "-n", host]
        far = address[:-1] + "1"
        for words in (
            [*there, "link", "add", "up0", "type", "veth", "peer", "name", name, "netns", self.engine.netns],
            [*there, "address", "add", f"{far}/24", "dev", "up0"],
            [*here, "address", "add", f"{address}/24", "dev", name],
            [*there, "link", "set", "up0", "up"],
            [*here, "link", "set", name, "up"],
        ):
            subprocess.run(words, check=True)

    def mac(self, container):
        return self.run("inspect", "-f", "{{.NetworkSettings.Networks.front.MacAddress}}", container)

    def link(self):
        """The host's end of the echo container's link."""
        words = ["nsenter", f"--net={self.inside['echo']}", "cat", "/proc/net/dev"]
        names = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "eth0" in names, names
        words = ["nsenter", f"--net={self.inside['echo']}", "ip", "-o", "link", "show", "eth0"]
        index = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("@if")[1].split(":")[0]
        words = ["ip", "-n", self.engine.netns, "-o", "link"]
        links = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        return next(line.split(": ")[1].split("@")[0] for line in links if line.startswith(f"{index}:"))

    def storm(self, kind, seconds):
        """One kind of storm, with all that goes on in it."""
        macs = [self.mac(name) for name in ("spoofer", "peer", "echo")]
        span = seconds + 1
        host = "/run/netns/"
        direct = [(ECHO, OPEN), (ECHO, CLOSED), (ECHO6, OPEN), (ECHO6, CLOSED)]
        loopback = [("127.0.0.1", ON_LOOPBACK), (OUTSIDE, ON_LOOPBACK), (OUTSIDE, CLOSED)]
        lives = [Child(host + self.hosts["client"], live, OUTSIDE, PUBLISHED, span),
                 Child(self.inside["peer"], live, ECHO, OPEN, span)]
        open_ = (OUTSIDE, PUBLISHED)
        probes = [Child(host + self.hosts["neighbour"], probe, direct + loopback, open_, span),
                  Child(self.inside["other"], probe, direct + loopback[1:], open_, span)]
        ear = Child(self.inside["echo"], hear, span)
        spoofer = Child(self.inside["spoofer"], spoof, macs, span)
        time.sleep(0.5)
        struck = Child(self.netns, storm, kind, self.link(), seconds, self.backend).result()
        lives, probes = [child.result() for child in lives], [child.result() for child in probes]
        spoofed = {**(spoofer.result() or {}), **(ear.result() or {})}
        if struck is None or None in lives or None in probes or "tried" not in spoofed:
            raise SystemExit(f"{kind}: a part of the experiment failed")
        return {"kind": kind, **struck, "lives": lives, "probes": [*probes, spoofed]}

    def stop(self):
        for child in self.children:
            child.kill()
        self.engine.stop(self.docker)
        for host in self.hosts.values():
            subprocess.run(["ip", "netns", "del", host])


def judge(row):
    """What does not hold."""
    wrong = []
    if any(one["alive"] < CONNECTIONS or not one["rounds"] for one in row["lives"]):
        wrong.append("connections died")
    if any(one["through"] for one in row["probes"]):
        wrong.append("a probe got through")
    if any(not one["control"] for one in row["probes"]):
        wrong.append("a prober reached nothing at all: it proves nothing")
    if None in row["healed"] or not row["healed"] or not row["rules"]:
        wrong.append("something was not healed")
    return wrong


def show(rows):
    print("| every 100 ms | times | whole again after ms: median | 99% | longest | within 100 ms "
          "| connections alive | longest silence ms | closed probes through |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        healed = sorted(PATIENCE * 1000 if one is None else one for one in row["healed"])
        at = lambda share: f"{healed[min(int(len(healed) * share), len(healed) - 1)]:.1f}"
        within = sum(one <= 100 for one in healed) / len(healed)
        alive = sum(one["alive"] for one in row["lives"])
        worst = max(one["worst"] for one in row["lives"])
        through, tried = (sum(one[key] for one in row["probes"]) for key in ("through", "tried"))
        print(f"| {row['kind']} | {len(healed)} | {at(0.5)} | {at(0.99)} | {healed[-1]:.1f} | {within:.1%} "
              f"| {alive} of {2 * CONNECTIONS} | {worst:.0f} | {through} of {tried} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docker", required=True, help="a docker client")
    parser.add_argument("--portolan", required=True)
    parser.add_argument("--image", required=True, help="busybox.tar")
    parser.add_argument("--seconds", type=float, default=20, help="of each kind")
    parser.add_argument("--backend", choices=("nftables", "iptables"), default="nftables")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    lab = Lab(arguments)
    try:
        rows = [lab.storm(kind, arguments.seconds) for kind in arguments.kinds]
        log = (lab.engine.home / "log").read_text(errors="replace")
    finally:
        lab.stop()
    print(f"Load of the machine at the beginning {load}.\n")
    show(rows)
    wrong = [f"{row['kind']}: {one}" for row in rows for one in judge(row)]
    if wrong:
        print("\n".join(wrong), *(json.dumps(row["probes"]) for row in rows), log[-3000:], sep="\n", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
