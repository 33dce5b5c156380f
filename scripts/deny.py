#!/usr/bin/env python3
"""Checks the locked dependencies offline: licences, banned crates and known advisories.

deny/policy.json     which licences are allowed, which crates are not, which advisories do not concern us
                     (each with its reason)
deny/advisories.tsv  a snapshot of the RustSec advisory database (public domain): id, crate, patched and
                     unaffected version requirements, kind; made by `scripts/deny.py snapshot DIRECTORY`
                     from a copy of that database
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
POLICY = json.loads((ROOT / "deny/policy.json").read_text())
SNAPSHOT = ROOT / "deny/advisories.tsv"


def snapshot(directory):
    """Writes the snapshot from a copy of the database."""
    rows = []
    for path in sorted(pathlib.Path(directory).glob("crates/*/RUSTSEC-*.md")):
        front = re.search(r"```toml\n(.*?)```", path.read_text(), re.S)
        entry = tomllib.loads(front.group(1))
        advisory, versions = entry["advisory"], entry.get("versions", {})
        if "withdrawn" in advisory:
            continue
        rows.append([
            advisory["id"],
            advisory["package"],
            " | ".join(versions.get("patched", [])),
            " | ".join(versions.get("unaffected", [])),
            advisory.get("informational", "vulnerability"),
        ])
    SNAPSHOT.write_text("".join("\t".join(row) + "\n" for row in rows))
    print(f"{len(rows)} advisories")


def version(text):
    """(major, minor, patch, is a release, pre-release text), which sorts as semver does nearly enough."""
    number, _, pre = text.split("+")[0].partition("-")
    parts = [int(part) for part in number.split(".")] + [0, 0]
    return (*parts[:3], pre == "", pre)


def satisfies(have, requirement):
    """Whether a version meets a cargo requirement such as `>=1.2, <2`, `^0.3.1` or `=1.0.0`."""
    for term in requirement.split(","):
        match = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~)?\s*([0-9][^\s]*)\s*", term)
        if not match:
            raise SystemExit(f"cannot read the version requirement {requirement!r}")
        operator, text = match.group(1) or "^", match.group(2)
        want = version(text)
        if operator in ("^", "~"):
            numbers = text.split("-")[0].split(".")
            fixed = next((i for i, n in enumerate(numbers) if int(n)), len(numbers) - 1) if operator == "^" else min(1, len(numbers) - 1)
            above = list(want[:3])
            above[fixed] += 1
            above[fixed + 1:] = [0] * (2 - fixed)
            met = want <= have < (*above, False, "")
        else:
            met = {">=": have >= want, "<=": have <= want, ">": have > want, "<": have < want, "=": have[:3] == want[:3]}[operator]
        if not met:
            return False
    return True


def licence_allowed(expression):
    """Whether an SPDX expression can be met with allowed licences: one of an OR, all of an AND."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def parse_or():
        value = parse_and()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = parse_and() or value
        return value

    def parse_and():
        value = parse_term()
        while tokens and tokens[0] in ("AND", "WITH"):
            if tokens.pop(0) == "WITH":
                tokens.pop(0)
            else:
                value = parse_term() and value
        return value

    def parse_term():
        token = tokens.pop(0)
        if token == "(":
            value = parse_or()
            tokens.pop(0)
            return value
        return token in POLICY["licences"]

    return parse_or()


def main():
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--offline"], cwd=ROOT, capture_output=True, text=True
    )
    if metadata.returncode:  # nothing was fetched yet
        metadata = subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    packages = [p for p in json.loads(metadata.stdout)["packages"] if p["source"]]
    advisories = {}
    for line in SNAPSHOT.read_text().splitlines():
        name, crate, patched, unaffected, kind = line.split("\t")
        advisories.setdefault(crate, []).append((name, patched, unaffected, kind))
    problems = []
    for package in packages:
        what = f"{package['name']} {package['version']}"
        licence = package["license"] or ""
        if not licence or not licence_allowed(licence):
            problems.append(f"{what}: licence {licence or 'unknown'} is not allowed")
        if package["name"] in POLICY["banned"]:
            problems.append(f"{what}: banned: {POLICY['banned'][package['name']]}")
        have = version(package["version"])
        for name, patched, unaffected, kind in advisories.get(package["name"], []):
            safe = [r for r in f"{patched} | {unaffected}".split(" | ") if r.strip()]
            if name not in POLICY["ignored_advisories"] and not any(satisfies(have, r) for r in safe):
                problems.append(f"{what}: {name} ({kind}), patched in {patched or 'no version'}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(packages)} dependencies checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["snapshot"]:
        snapshot(sys.argv[2])
    else:
        sys.exit(main())
