#!/usr/bin/env python3
"""Look-ups a second and their latency at 127.0.0.11: Docker and Portolan in turn, in the same run.

Clients are processes in a container's network namespace that ask for another container's name, one
question after the other. Prints a Markdown table. Arguments as of latency.py.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import subprocess
import time

from latency import Docker, Engine

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01"


def client(pid, seconds, results):
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if not hasattr(os, "setns"):
        import ctypes
        if ctypes.CDLL(None, use_errno=True).setns(namespace, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    else:
        os.setns(namespace, 0)
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.connect(("127.0.0.11", 53))
    asker.settimeout(5)
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        asker.send(QUERY)
        answer = asker.recv(512)
        times.append((time.perf_counter() - start) * 1e6)
        if answer[3] & 15 or not answer[7]:
            raise SystemExit(f"no address: {answer!r}")
    results.put(times)


def measure(pid, clients, seconds):
    results = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=client, args=(pid, seconds, results)) for _ in range(clients)]
    for worker in workers:
        worker.start()
    times = sorted(time for _ in workers for time in results.get())
    for worker in workers:
        worker.join()
    return len(times) / seconds, times[len(times) // 2], times[len(times) * 99 // 100]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", required=True, help="the folder of an unpacked docker.io, .../usr")
    parser.add_argument("--docker", required=True, help="the docker client")
    parser.add_argument("--portolan", required=True)
    parser.add_argument("--image", required=True, help="busybox.tar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2)
    arguments = parser.parse_args()
    engines = {
        "Docker": Docker(arguments.tools),
        "Portolan": Engine("portolan", [arguments.portolan, "daemon"]),
    }
    try:
        found = {}
        for name, engine in engines.items():
            def docker(*words):
                words = [arguments.docker, "--host", engine.socket, *words]
                return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
            while subprocess.run([arguments.docker, "--host", engine.socket, "version"], capture_output=True).returncode:
                time.sleep(0.05)
            docker("import", "-c", 'CMD ["sh"]', arguments.image, "busybox:latest")
            docker("network", "create", "front")
            docker("run", "-d", "--name", "web", "--network", "front", "busybox", "sleep", "600")
            docker("run", "-d", "--name", "asker", "--network", "front", "busybox", "sleep", "600")
            found[name] = (docker("inspect", "-f", "{{.State.Pid}}", "asker"), [])
        for _ in range(arguments.rounds):
            for pid, rows in found.values():
                rows.append(measure(pid, arguments.clients, 1))
        print(f"| {arguments.clients} clients | look-ups/s | p50 us | p99 us |\n|---|---|---|---|")
        for name, (_, rows) in found.items():
            print(f"| {name} |", " | ".join(f"{statistics.median(column):.0f}" for column in zip(*rows)), "|")
    finally:
        for engine in engines.values():
            engine.stop(arguments.docker)


if __name__ == "__main__":
    main()
