#!/usr/bin/env python3
"""Wall time of whole commands: Docker and Portolan side by side, interleaved.

Each engine runs in a network namespace of its own. In every round each case runs once on every engine
and client, so that a slow moment of the machine hits all alike. Prints a Markdown table of medians in
milliseconds and the ratio to each Docker.
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


# A host's /sys tells of that host's links; without this dockerd waits for a bridge that it cannot see.
OWN_SYS = """set -e
mount --rbind /sys/fs/cgroup /mnt
mount -t sysfs sysfs /sys
mount --move /mnt /sys/fs/cgroup
"""
# With nftables, dockerd leaves it to the administrator to have the host forward.
FORWARD = "echo 1 >/proc/sys/net/ipv4/ip_forward\n"


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


class Docker(Engine):
    """A dockerd of FOLDER[:BACKEND]: its programs in the folder, or in bin and sbin there; its firewall backend."""

    def __init__(self, release):
        folder, _, backend = release.partition(":")
        folder = pathlib.Path(folder).resolve()
        folders = f"{folder}/bin:{folder}/sbin:{folder}"
        program = shutil.which("dockerd", path=folders)
        if program is None:
            raise SystemExit(f"{folder}: no dockerd there")
        before = OWN_SYS + (FORWARD if backend == "nftables" else "") + 'exec "$@"'
        words = ["unshare", "--mount", "--", "sh", "-c", before, "sh", program]
        words += [f"--firewall-backend={backend}"] if backend else []
        super().__init__("docker", words, {**os.environ, "PATH": f"{folders}:{os.environ['PATH']}"})
        self.backend = backend

    def title(self, version):
        """Its name in a table, from the version that it tells."""
        return " ".join(filter(None, ("Docker", version.split("+")[0], self.backend)))


def dockers(parser):
    """Has the command line name one Docker or several."""
    parser.add_argument("--tools", required=True, help="the folder of an unpacked docker.io, .../usr")
    parser.add_argument("--newer", action="append", default=[], metavar="FOLDER[:BACKEND]",
                        help="the same of a newer Docker, with a firewall backend that it is to use; may be repeated")


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
    dockers(parser)
    parser.add_argument("--docker", required=True, help="the docker client")
    parser.add_argument("--portolan", required=True)
    parser.add_argument("--image", required=True, help="busybox.tar")
    arguments = parser.parse_args()

    peers, engines, columns = {}, [], {}
    try:
        for release in (arguments.tools, *arguments.newer, None):
            engine = Docker(release) if release else Engine("portolan", [arguments.portolan, "daemon"])
            engines.append(engine)
            client = [arguments.docker, "--host", engine.socket]
            for _ in range(200):
                if not subprocess.run([*client, "version"], capture_output=True).returncode:
                    break
                time.sleep(0.1)
            subprocess.run([*client, "import", "-c", 'CMD ["sh"]', arguments.image, "busybox:latest"],
                           check=True, capture_output=True)
            subprocess.run([*client, "network", "create", "mine"], check=True, capture_output=True)
            if release:
                version = subprocess.run([*client, "version", "--format", "{{.Server.Version}} {{.Client.Version}}"],
                                         capture_output=True, text=True).stdout.split()
                peers[engine.title(version[0])] = (arguments.docker, engine)
            else:
                columns["Portolan, docker CLI"] = (arguments.docker, engine)
                columns["Portolan, own CLI"] = (arguments.portolan, engine)
        columns = {**peers, **columns}
        times = {case: {column: [] for column in columns} for case in CASES}
        for round_number in range(arguments.rounds + 1):
            for column, (client, engine) in columns.items():
                for case, commands in CASES.items():
                    elapsed = sum(timed([client, "--host", engine.socket, *words]) for words in commands)
                    if round_number:  # the first round warms caches
                        times[case][column].append(elapsed)
    finally:
        for engine in engines:
            engine.stop(arguments.docker)

    print(f"Docker's client {version[1]}; kernel {platform.release().split('-')[0]}, {os.cpu_count()} cores; medians of "
          f"{arguments.rounds} interleaved rounds, ms; in brackets how many times faster than "
          f"{', '.join(peers)}.\n")
    print("| command | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for case, row in times.items():
        medians = {column: statistics.median(row[column]) for column in columns}
        cells = []
        for column, median in medians.items():
            faster = ", ".join(f"{medians[peer] / median:.1f}x" for peer in peers)
            cells.append(f"{median:.1f}" if column in peers else f"{median:.1f} ({faster})")
        print(f"| `{case}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
