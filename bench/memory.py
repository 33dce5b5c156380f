#!/usr/bin/env python3
"""Memory of engines and their containers: proportional set size by smaps_rollup, idle and with N containers.

usage: bench/memory.py [--tools FOLDER[:BACKEND]]... [--docker docker] [--portolan target/release/portolan]
                       [--image busybox.tar] [--containers 50]
Each engine runs by itself, in a network namespace of its own; needs root. Prints a Markdown table in MiB.
"""

import argparse
import pathlib
import subprocess
import time

from latency import Docker, Engine

KINDS = ("shim", "launcher", "resolver", "docker-proxy", "containerd")


def pss_kib(pid):
    """Proportional and private dirty memory of a process; zeros once it is gone."""
    found = {"Pss": 0, "Private_Dirty": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in found:
                    found[name] = int(rest.split()[0])
    except OSError:
        pass
    return found


def kinds(engine):
    """The memory in KiB of the engine's processes by kind; containers have namespaces of their own and do not count."""
    words = ["ip", "netns", "pids", engine.netns]
    pids = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    found = {"daemon": [pss_kib(engine.process.pid)["Pss"]]}
    for pid in map(int, pids):
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
        except OSError:
            continue
        if pid != engine.process.pid:
            # The program or what it is told to be: Portolan is one program.
            names = " ".join([pathlib.Path(command[0]).name, *command[1:2]])
            kind = next((kind for kind in KINDS if kind in names), names)
            found.setdefault(kind, []).append(pss_kib(pid)["Pss"])
    return found


def cells(found):
    """How much of each kind, and of all."""
    mib = {kind: sum(each) / 1024 for kind, each in found.items()}
    text = ", ".join(
        f"{kind} {mib[kind]:.1f}" + (f" ({mib[kind] / len(each):.2f} each)" if len(each) > 1 else "")
        for kind, each in found.items()
    )
    return f"{sum(mib.values()):.1f} ({text})"


def measure(engine, client, image, containers):
    """What it takes idle, with containers and when they are gone."""

    def run(*words):
        return subprocess.run([*client, *words], check=True, capture_output=True, text=True).stdout

    while subprocess.run([*client, "version"], capture_output=True, check=False).returncode:
        if engine.process.poll() is not None:
            raise SystemExit((engine.home / "log").read_text())
        time.sleep(0.05)
    run("import", image, "busybox:latest")
    run("network", "create", "mine")
    found = [kinds(engine)]
    for _ in range(containers):
        run("run", "-d", "--network", "mine", "busybox", "sleep", "3600")
    time.sleep(1)
    found.append(kinds(engine))
    run("rm", "-f", *run("ps", "-aq").split())
    time.sleep(1)
    found.append(kinds(engine))
    return found


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", action="append", default=[], metavar="FOLDER[:BACKEND]",
                        help="an unpacked Docker to measure too, and its firewall backend; may be repeated")
    parser.add_argument("--docker", default="docker", help="the docker client, for Docker")
    parser.add_argument("--portolan", default=str(here / "target/release/portolan"))
    parser.add_argument("--image", default=str(here / "target/images/busybox.tar"))
    parser.add_argument("--containers", type=int, default=50)
    arguments = parser.parse_args()
    print(f"| engine | no container | {arguments.containers} containers | all removed |\n|---|---|---|---|")
    for release in (*arguments.tools, None):
        engine = Docker(release) if release else Engine("portolan", [arguments.portolan, "daemon"])
        client = [arguments.docker if release else arguments.portolan, "--host", engine.socket]
        try:
            found = measure(engine, client, arguments.image, arguments.containers)
            title = "Portolan"
            if release:
                words = [*client, "version", "--format", "{{.Server.Version}}"]
                title = engine.title(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
        finally:
            engine.stop(client[0])
        print(f"| {title} | " + " | ".join(map(cells, found)) + " |", flush=True)


if __name__ == "__main__":
    main()
