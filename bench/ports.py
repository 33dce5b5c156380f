#!/usr/bin/env python3
"""Published ports by the thousand: Docker and Portolan side by side, interleaved.

Three tables: what publishing N ports adds to a container's start, in time, processes and memory; new
connections a second through a published port, with no other published and with many; the time to publish
one port more of a running container. Starts are timed at the API (`POST /containers/{id}/start`), so that
no client counts. Processes and memory are those of the first round, in which the numbers of ports only grow:
later a process keeps what it once had. Connections come from a host of its own (a namespace joined by a veth
pair), one after the other, to one port both times: the middle one of all that are published.
"""

import argparse
import collections
import ctypes
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import time

from latency import Docker, Engine, dockers
from memory import pss_kib

FIRST = 20000
# A port of the host leads to the next one of the container: a range onto itself is less work for some.
SHIFT = 1
# Published beside them: next to them it would be part of a range of those that are carried over.
OTHER = FIRST - 100
HOST, CLIENT = "198.51.100.2", "198.51.100.1"


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path):
        super().__init__("engine", timeout=3600)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Peer:
    """An engine, a host beside it, and one container."""

    def __init__(self, engine, docker):
        self.engine = engine
        self.docker, self.server = docker, None
        self.path = self.engine.socket.removeprefix("unix://")
        self.client = f"{self.engine.netns}-client"
        here = ["ip", "-n", self.engine.netns]
        there = ["ip", "-n", self.client]
        for words in (
            ["ip", "netns", "add", self.client],
            [*there, "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", self.engine.netns],
            [*there, "address", "add", f"{CLIENT}/24", "dev", "up0"],
            [*here, "address", "add", f"{HOST}/24", "dev", "up0"],
            [*there, "link", "set", "up0", "up"],
            [*here, "link", "set", "up0", "up"],
        ):
            subprocess.run(words, check=True)

    def begin(self, image):
        """Waits until it answers, and gives it an image."""
        docker = self.docker
        while subprocess.run([docker, "--host", self.engine.socket, "version"], capture_output=True).returncode:
            if self.engine.process.poll() is not None:
                raise SystemExit((self.engine.home / "log").read_text())
            time.sleep(0.05)
        words = [docker, "--host", self.engine.socket, "import", "-c", 'CMD ["sh"]', image, "busybox:latest"]
        subprocess.run(words, check=True, capture_output=True)

    def call(self, method, path, body=None):
        """The answer, and how long it took in milliseconds."""
        connection = Connection(self.path)
        data = None if body is None else json.dumps(body)
        start = time.perf_counter()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = connection.getresponse()
        text = answer.read()
        elapsed = (time.perf_counter() - start) * 1000
        connection.close()
        if answer.status >= 300:
            raise SystemExit(f"{self.engine.netns}: {method} {path}: {answer.status} {text.decode()}")
        return text, elapsed

    def version(self):
        return json.loads(self.call("GET", "/version")[0])["Version"]

    def run(self, count, shift=SHIFT):
        """Starts a container with so many published ports: milliseconds."""
        ports = range(FIRST, FIRST + count)
        body = {
            "Image": "busybox", "Cmd": ["sleep", "3600"],
            "ExposedPorts": {f"{port + shift}/tcp": {} for port in ports},
            "HostConfig": {"PortBindings": {f"{port + shift}/tcp": [{"HostPort": str(port)}] for port in ports}},
        }
        self.call("POST", "/containers/create?name=box", body)
        return self.call("POST", "/containers/box/start")[1]

    def remove(self):
        self.call("DELETE", "/containers/box?force=true")

    def processes(self):
        """The engine's processes; containers have namespaces of their own."""
        words = ["ip", "netns", "pids", self.engine.netns]
        pids = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        return {int(pid) for pid in pids}

    def memory(self):
        """Their memory in KiB."""
        return sum(pss_kib(pid)["Pss"] for pid in self.processes())

    def served(self, count):
        """The port that connections go to."""
        return FIRST + count // 2

    def serve(self, count):
        """Accepts connections in the container's network namespace."""
        pid = json.loads(self.call("GET", "/containers/box/json")[0])["State"]["Pid"]
        child = os.fork()
        if child == 0:
            enter(f"/proc/{pid}/ns/net")
            accept(self.served(count) + SHIFT)
        self.server = child

    def unserve(self):
        if self.server:
            os.kill(self.server, signal.SIGKILL)
            os.waitpid(self.server, 0)
            self.server = None

    def stop(self):
        self.unserve()
        self.engine.stop(self.docker)
        subprocess.run(["ip", "netns", "del", self.client])


def enter(path):
    """Moves the calling process into a network namespace."""
    with open(path, "rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"enter {path}")


def accept(port):
    """Accepts for ever; the client closes with a reset, so nothing is left in TIME_WAIT."""
    listener = socket.create_server(("", port), backlog=512)
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            pass


def connect(client, port, connections):
    """New connections a second, by a process in the client's namespace."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            enter(f"/run/netns/{client}")
            start = time.perf_counter()
            for _ in range(connections):
                attempt = socket.socket()
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                attempt.settimeout(5)
                attempt.connect((HOST, port))
                attempt.close()
            os.write(write, str(connections / (time.perf_counter() - start)).encode())
        finally:
            os._exit(0)
    os.close(write)
    text = os.read(read, 100)
    os.close(read)
    os.wait()
    if not text:
        raise SystemExit(f"{client}: no connection")
    return float(text)


def rows(counts):
    """What is published: how many ports, and how far they are from the container's; the most also onto themselves."""
    return [(0, SHIFT), *((count, SHIFT) for count in counts), (max(counts), 0)]


def publish(kinds, arguments):
    """Of (kind, row): milliseconds of a start, processes, memory."""
    times, sizes = collections.defaultdict(list), {}
    for peer, _, _ in kinds.values():
        # What comes with the first container, whatever it publishes, is no port's.
        peer.run(0)
        peer.remove()
    for turn in range(arguments.rounds + 1):
        for kind, (peer, _, most) in kinds.items():
            for row in rows(arguments.counts):
                count, shift = row
                # Starting with thousands takes Docker minutes: once, and not a second time as a range.
                once = count >= 1000 and kind != "Portolan"
                if count > most or (turn and once) or (once and shift != SHIFT):
                    continue
                before = peer.processes()
                elapsed = peer.run(count, shift)
                time.sleep(0.2)
                if not turn:
                    sizes[kind, row] = (len(peer.processes() - before), peer.memory())
                peer.remove()
                if turn or once:  # the first round warms caches
                    times[kind, row].append(elapsed)
            print(f"{kind}: round {turn} of {arguments.rounds}", file=os.sys.stderr)
    return {key: (statistics.median(rows), *sizes[key]) for key, rows in times.items()}


def show_publish(found, kinds, counts):
    """A row for each number of ports: the start, processes and memory above those without ports."""
    print("| ports | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for published in rows(counts):
        count, shift = published
        cells = []
        for kind in kinds:
            row, none = found.get((kind, published)), found[kind, (0, SHIFT)]
            if row is None:
                cells.append("not run")
            elif count == 0:
                cells.append(f"{row[0]:.0f} ms, {row[2] / 1024:.1f} MiB")
            else:
                # A process keeps what it once had: of what comes after the most, memory tells nothing.
                memory = f", {(row[2] - none[2]) / 1024:+.1f} MiB" if shift else ""
                cells.append(f"{row[0] - none[0]:+.0f} ms, {row[1] - none[1]:+.0f} processes{memory}")
        print(f"| {count}{'' if shift else ', a range onto itself'} | " + " | ".join(cells) + " |")


def another(peer):
    """Publishes one port more of a running container, and takes it back: milliseconds."""
    path, port = "/portolan/containers/box/ports", {"HostPort": str(OTHER)}
    elapsed = peer.call("POST", path, {"Add": {"80/tcp": [port]}})[1]
    return elapsed, peer.call("POST", path, {"Remove": [f"{OTHER}/tcp"]})[1]


def rate(kinds, arguments):
    """Connections through one published port and through many, and adding one more to each.

    One kind after the other: a thousand ports take Docker 2000 processes of 7 threads or more, so that
    several Dockers' at once would be all the threads that a machine has.
    """
    rates, added = collections.defaultdict(list), collections.defaultdict(list)
    counts = {}
    for kind, (few, many, most) in kinds.items():
        for peer, count in ((few, 1), (many, min(most, max(arguments.counts)))):
            peer.run(count)
            peer.serve(count)
            counts[peer] = count
        time.sleep(1)
        for turn in range(arguments.rounds + 1):
            for peer in (few, many) if turn % 2 else (many, few):
                got = connect(peer.client, peer.served(counts[peer]), arguments.connections)
                if turn:
                    rates[kind, peer is many].append(got)
        # Afterwards: what the engine does behind its answer would count for the next connections.
        for turn in range(arguments.changes + 1 if kind == "Portolan" else 0):
            for peer in (few, many) if turn % 2 else (many, few):
                row = another(peer)
                time.sleep(0.05)
                if turn:
                    added[peer is many].append(row)
        for peer in (few, many):
            peer.unserve()
            peer.remove()
        print(f"{kind}: connections", file=os.sys.stderr)
    print("\n| new connections/s through a published port | alone | among many | of alone: median (least to most) |"
          "\n|---|---|---|---|")
    for kind, (_, many, _) in kinds.items():
        one, all_of = (statistics.median(rates[kind, which]) for which in (False, True))
        # The ratio of each round, so that a slow moment counts for both.
        ratios = sorted(b / a for a, b in zip(rates[kind, False], rates[kind, True]))
        print(f"| {kind} | {one:.0f} | {all_of:.0f} ({counts[many]} ports) | {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |")
    if added:
        print("\n| Portolan, ports of a running container | with 1 published | with many |\n|---|---|---|")
        for column, what in enumerate(("add one, ms", "remove one, ms")):
            one, many = (statistics.median(row[column] for row in added[which]) for which in (False, True))
            print(f"| {what} | {one:.2f} | {many:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    dockers(parser)
    parser.add_argument("--docker", required=True, help="the docker client")
    parser.add_argument("--portolan", required=True)
    parser.add_argument("--image", required=True, help="busybox.tar")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=20000)
    parser.add_argument("--changes", type=int, default=200, help="ports added to a running container and removed")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default=[1, 100, 1000, 10000])
    parser.add_argument("--docker-most", type=int, default=1000,
                        help="most ports for Docker: with 10,000 it takes many minutes and 20,000 processes")
    arguments = parser.parse_args()
    kinds, peers = {}, []

    def start(most, engine, *words):
        pair = []
        for _ in range(2):
            pair.append(Peer(engine(*words), arguments.docker))
            peers.append(pair[-1])
            pair[-1].begin(arguments.image)
        docker = isinstance(pair[0].engine, Docker)
        kinds[pair[0].engine.title(pair[0].version()) if docker else "Portolan"] = (*pair, most)

    try:
        for release in (arguments.tools, *arguments.newer):
            start(arguments.docker_most, Docker, release)
        start(max(arguments.counts), Engine, "portolan", [arguments.portolan, "daemon"])
        load = pathlib.Path("/proc/loadavg").read_text().split()[0]
        found = publish(kinds, arguments)
        print(f"Medians of {arguments.rounds} interleaved rounds (Docker with 1000 ports and more: one); "
              f"load of the machine at the beginning {load}.\n")
        show_publish(found, kinds, arguments.counts)
        rate(kinds, arguments)
    finally:
        for peer in peers:
            peer.stop()


if __name__ == "__main__":
    main()
