#!/usr/bin/env python3
"""Wall time of whole commands: Docker and Portolan side by side, interleaved.

Each engine runs in a network namespace of its own. In every round each case runs once on every engine
and client, so that a slow moment of the machine hits all alike. Prints a Markdown table of medians in
milliseconds and the ratio to Docker.
"""

import argparse
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

# name -> commands whose total time is measured
CASES = {
    "ps -q (the client's own floor)": [["ps", "-q"]],
    "run --rm busybox true, default bridge": [["run", "--rm", "busybox", "true"]],
    "run --rm, user network": [["run", "--rm", "--network", "mine", "busybox", "true"]],
    "run --rm -p, user network": [["run", "--rm", "--network", "mine", "-p", "8080:80", "busybox", "true"]],
    "run --rm --net=none": [["run", "--rm", "--net=none", "busybox", "true"]],
    "run --rm --net=host": [["run", "--rm", "--net=host", "busybox", "true"]],
    "run -d": [["run", "-d", "--name", "victim", "busybox", "sleep", "600"]],
    "exec true": [["exec", "victim", "true"]],
    "rm -f": [["rm", "-f", "victim"]],
    "network create": [["network", "create", "fresh"]],
    "network rm": [["network", "rm", "fresh"]],
}


class Engine:
    """An engine in a namespace and a directory of its own."""

    def __init__(self, name, words, environment=None):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir="/tmp"))
        self.netns = self.home.name
        self.socket = f"unix://{self.home}/engine.sock"
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        flags = ["--host", self.socket, "--data-root", f"{self.home}/data", "--exec-root", f"{self.home}/exec",
                 "--pidfile", f"{self.home}/pid"]
        log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.netns}", "--", *words, *flags],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def stop(self, client):
        ids = subprocess.run([client, "--host", self.socket, "ps", "-aq"], capture_output=True, text=True).stdout.split()
        if ids:
            subprocess.run([client, "--host", self.socket, "rm", "-f", *ids], capture_output=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        subprocess.run(["ip", "netns", "del", self.netns])
        mounts = [line.split()[1] for line in open("/proc/mounts") if line.split()[1].startswith(f"{self.home}/")]
        for mount in reversed(mounts):
            subprocess.run(["umount", "-l", mount])
        shutil.rmtree(self.home, ignore_errors=True)


def timed(words):
    start = time.perf_counter()
    result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    elapsed = (time.perf_counter() - start) * 1000
    if result.returncode:
        raise SystemExit(f"{' '.join(words)}: {result.stderr.decode()}")
    return elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tools", required=True, help="the folder of an unpacked docker.io, .../usr")
    parser.add_argument("--docker", required=True, help="the docker client")
    parser.add_argument("--portolan", required=True)
    parser.add_argument("--image", required=True, help="busybox.tar")
    arguments = parser.parse_args()

    path = f"{arguments.tools}/bin:{arguments.tools}/sbin:{os.environ['PATH']}"
    docker = Engine("docker", [f"{arguments.tools}/sbin/dockerd"], {**os.environ, "PATH": path})
    ours = Engine("portolan", [arguments.portolan, "daemon"])
    columns = {
        "Docker, docker CLI": (arguments.docker, docker),
        "Portolan, docker CLI": (arguments.docker, ours),
        "Portolan, own CLI": (arguments.portolan, ours),
    }
    try:
        for engine in (docker, ours):
            client = [arguments.docker, "--host", engine.socket]
            for _ in range(200):
                if not subprocess.run([*client, "version"], capture_output=True).returncode:
                    break
                time.sleep(0.1)
            subprocess.run([*client, "import", "-c", 'CMD ["sh"]', arguments.image, "busybox:latest"],
                           check=True, capture_output=True)
            subprocess.run([*client, "network", "create", "mine"], check=True, capture_output=True)
        times = {case: {column: [] for column in columns} for case in CASES}
        for round_number in range(arguments.rounds + 1):
            for column, (client, engine) in columns.items():
                for case, commands in CASES.items():
                    elapsed = sum(timed([client, "--host", engine.socket, *words]) for words in commands)
                    if round_number:  # the first round warms caches
                        times[case][column].append(elapsed)
        version = subprocess.run([arguments.docker, "--host", docker.socket, "version", "--format",
                                  "{{.Server.Version}} with client {{.Client.Version}}"],
                                 capture_output=True, text=True).stdout.strip()
    finally:
        docker.stop(arguments.docker)
        ours.stop(arguments.docker)

    print(f"Docker {version}; kernel {platform.release()}, {os.cpu_count()} cores; medians of "
          f"{arguments.rounds} interleaved rounds, ms; in brackets how many times faster than Docker.\n")
    print("| command | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    first = next(iter(columns))
    for case, row in times.items():
        base = statistics.median(row[first])
        cells = [f"{base:.1f}"]
        for column in list(columns)[1:]:
            median = statistics.median(row[column])
            cells.append(f"{median:.1f} ({base / median:.1f}x)")
        print(f"| `{case}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
