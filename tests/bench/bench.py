#!/usr/bin/env python3
"""Runs the benchmark programs and prints a table; called by `./dev bench`.

usage: bench.py PROGRAM_DIR [NAME...] [--quick] [--json FILE]

Each program prints one JSON object a result; FILE gets them, one a line. Exit code 0: every program ran. A missed goal is
shown, not hidden behind an exit code: speed depends on the machine.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def cell(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(results):
    columns = [("name", "name"), ("value", "value"), ("unit", "unit"), ("min", "min"), ("max", "max"), ("peer", "peer"),
               ("peer_value", "peer value"), ("ratio", "ratio"), ("goal", "goal"), ("met", "met")]
    rows = [[title for _, title in columns]]
    for result in results:
        rows.append([("yes" if result["met"] else "no") if key == "met" else cell(result.get(key))
                     for key, _ in columns])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def run(program, quick):
    """The program's results; None when it failed (it said why)."""
    with tempfile.TemporaryDirectory(prefix="proxytier-bench.") as work:
        command = [program] + (["--quick"] if quick else []) + [work]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=1800)
    if done.returncode != 0:
        print(f"{os.path.basename(program)}: failed with exit code {done.returncode}", file=sys.stderr)
        return None
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("programs", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--json", metavar="FILE", help="write one JSON object a line there")
    options = parser.parse_intermixed_args()
    there = sorted(os.listdir(options.programs))
    unknown = [name for name in options.names if name not in there]
    if unknown:
        sys.exit(f"dev: no benchmark {', '.join(unknown)}; there are: {' '.join(there)}")
    print(f"{cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}{', quick' if options.quick else ''}")
    results, failed = [], 0
    for name in options.names or there:
        found = run(os.path.join(options.programs, name), options.quick)
        failed += found is None
        results += found or []
    print_table(results)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            for result in results:
                file.write(json.dumps(result) + "\n")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
