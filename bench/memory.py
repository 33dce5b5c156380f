#!/usr/bin/env python3
"""Memory of a running daemon and its containers: PSS by smaps_rollup, idle and with N containers.

usage: bench/memory.py [--binary target/release/portolan] [--image busybox.tar] [--containers 50]
Starts a daemon of its own in a network namespace of its own; needs root. Prints MiB.
"""

import argparse
import os
import subprocess
import tempfile
import time


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


def kinds(namespace, daemon):
    """The engine's processes by kind; containers have namespaces of their own and do not count."""
    pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    found = {"daemon": [daemon], "launcher": [], "resolver": [], "shim": []}
    for pid in map(int, pids.stdout.split()):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                command = file.read()
        except OSError:
            continue
        for kind in ("launcher", "resolver", "shim"):
            if kind in command and pid != daemon:
                found[kind].append(pid)
                break
    return found


def report(title, namespace, daemon):
    """One line a kind."""
    print(title)
    total = 0
    for kind, pids in kinds(namespace, daemon).items():
        pss = [pss_kib(pid) for pid in pids]
        own = sum(each["Pss"] for each in pss) / 1024
        dirty = sum(each["Private_Dirty"] for each in pss) / 1024
        total += own
        each = f", {own / len(pids):.2f} MiB each" if len(pids) > 1 else ""
        print(f"  {kind:9} x{len(pids):<4} PSS {own:7.2f} MiB{each} (private dirty {dirty:.2f})")
    print(f"  total          PSS {total:7.2f} MiB")


def main():
    """Measures and cleans up."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=os.path.join(here, "target/release/portolan"))
    parser.add_argument("--containers", type=int, default=50)
    parser.add_argument("--image", help="a tar of a root file system with busybox (default: made from /bin/busybox)")
    options = parser.parse_args()
    namespace = f"pt-memory-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    enter = ["nsenter", f"--net=/run/netns/{namespace}", "--"]
    home = tempfile.TemporaryDirectory(prefix="pt-memory-")
    socket = f"unix://{home.name}/s"
    client = [options.binary, "--host", socket]
    daemon = None

    def run(*words):
        return subprocess.run([*client, *words], check=True, capture_output=True, text=True)

    try:
        subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
        where = [f"--data-root={home.name}/data", f"--exec-root={home.name}/exec", f"--pidfile={home.name}/pid"]
        with open(f"{home.name}/log", "wb") as log:
            daemon = subprocess.Popen(
                [*enter, options.binary, "daemon", "--host", socket, *where], stdout=log, stderr=log
            )
        while not os.path.exists(f"{home.name}/s"):
            if daemon.poll() is not None:
                raise SystemExit(open(f"{home.name}/log", encoding="utf-8").read())
            time.sleep(0.01)
        image = options.image
        if image is None:
            root = f"{home.name}/image"
            os.makedirs(f"{root}/bin")
            subprocess.run(["cp", "/bin/busybox", f"{root}/bin/busybox"], check=True)
            os.symlink("busybox", f"{root}/bin/sleep")
            image = f"{home.name}/image.tar"
            subprocess.run(["tar", "-C", root, "-cf", image, "."], check=True)
        run("import", image, "busybox:latest")
        run("network", "create", "mine")
        report("no container", namespace, daemon.pid)
        for _ in range(options.containers):
            run("run", "-d", "--network", "mine", "busybox", "sleep", "3600")
        time.sleep(1)
        report(f"{options.containers} containers", namespace, daemon.pid)
        ids = run("ps", "-aq").stdout.split()
        run("rm", "-f", *ids)
        report("all removed", namespace, daemon.pid)
    finally:
        if daemon and daemon.poll() is None:
            daemon.terminate()
            daemon.wait()
        subprocess.run(["ip", "netns", "del", namespace], check=False)
        subprocess.run(["umount", "-R", "-l", f"{home.name}/exec/netns"], check=False, stderr=subprocess.DEVNULL)
        home.cleanup()


if __name__ == "__main__":
    main()
