#!/usr/bin/env python3
"""Runs the benchmark programs and prints a table; called by `./dev bench`.

usage: bench.py PROGRAM_DIR [NAME...] [--quick] [--trace FILE] [--json FILE]

NAME is a program or one of its rows (rows.txt says whose). Each program prints one JSON
object a result; FILE gets them, one a line, as docs/BENCHMARKS.md describes, when their program has ended. Exit code 0: every
program ran. A missed goal is shown, not hidden behind an exit code: speed depends on the machine.
"""
import argparse
import ctypes
import datetime
import difflib
import json
import os
import platform
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

LIMIT_S = {True: 120, False: 1800}  # of one program, in a quick and in a full run
COLUMNS = [("name", "name"), ("value", "value"), ("unit", "unit"), ("min", "min"), ("max", "max"), ("peer", "peer"),
           ("peer_value", "peer value"), ("ratio", "ratio"), ("goal", "goal"), ("met", "met")]
DETAILS = [("p50_us", "p50 {} us"), ("p99_us", "p99 {} us"), ("p999_us", "p99.9 {} us"), ("max_us", "max {} us"),
           ("peer_p50_us", "peer's p50 {} us"), ("peer_p99_us", "peer's p99 {} us"), ("peer_p999_us", "peer's p99.9 {} us"),
           ("server_cpu_s", "server {} CPU s"), ("client_cpu_s", "client {} CPU s"), ("peer_cpu_s", "peer {} CPU s"),
           ("server_peak_kb", "server's peak {} KB"), ("peer_peak_kb", "peer's peak {} KB")]


# ---- where it ran ----

def first_number(command):
    """The first version number that a command prints; "none" without such a command."""
    try:
        text = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found.group() if found else "none"


def nng_version():
    try:
        version = ctypes.CDLL("libnng.so.1").nng_version
    except OSError:
        return "none"
    version.restype = ctypes.c_char_p
    return version().decode()


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_gb():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def machine():
    return f"{cpu_model()}, {os.cpu_count()} CPUs, {memory_gb():.0f} GB, Linux {platform.release()}"


def versions():
    return ", ".join([f"redis {first_number(['redis-server', '--version'])}",
                      f"memcached {first_number(['memcached', '--version'])}", f"nng {nng_version()}",
                      f"SQLite {sqlite3.sqlite_version}", f"gcc {first_number(['gcc', '-dumpfullversion'])}"])


def load_average():
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


# ---- running ----

def rows_of_programs(directory):
    """Program -> the names of its rows."""
    rows = {name: [name] for name in os.listdir(directory) if os.access(os.path.join(directory, name), os.X_OK)}
    with open(os.path.join(os.path.dirname(__file__), "rows.txt"), encoding="utf-8") as file:
        rows.update({words[0]: words[1:] for words in map(str.split, file) if words[0] in rows})
    return rows


def programs_for(names, known):
    """The programs that give these rows, each once; all without names."""
    chosen, unknown = [], []
    for name in names:
        owners = [program for program, rows in known.items() if name == program or name in rows]
        unknown += [] if owners else [name]
        chosen += [program for program in owners if program not in chosen]
    if unknown:
        sys.exit(f"dev: no benchmark {', '.join(unknown)}{alike(unknown, known)}; programs, and their rows where they have others:\n"
                 + "\n".join(f"  {program}{'' if rows == [program] else ': ' + ' '.join(rows)}" for program, rows in sorted(known.items())))
    return chosen or sorted(known)


def alike(unknown, known):
    names = {name for program, rows in known.items() for name in (program, *rows)}
    found = sorted({near for name in unknown for near in difflib.get_close_matches(name, names)})
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def check_trace(path, programs):
    """Before anything runs: only hit_rate reads it."""
    if "hit_rate" not in programs:
        sys.exit("dev: --trace is for hit_rate, which is not among the NAMEs")
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        sys.exit(f"dev: cannot read {path}: --trace takes a file of keys, one a line, or CSV")


def run(program, options):
    """(results, None or what went wrong): what a program that fails had printed before counts."""
    command = [program] + (["--quick"] if options.quick else [])
    if options.trace and os.path.basename(program) == "hit_rate":
        command += ["--trace", os.path.abspath(options.trace)]
    with tempfile.TemporaryDirectory(prefix="proxytier-bench.") as work:
        # A session of its own: its daemons end with it even where it cannot end them.
        with subprocess.Popen(command + [work], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            try:
                output, wrong = process.communicate(timeout=LIMIT_S[options.quick])[0], None
                if process.returncode:
                    wrong = f"failed with exit code {process.returncode}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, wrong = process.communicate()[0], f"took more than {LIMIT_S[options.quick]} s"
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    results = []
    for line in output.splitlines():
        try:
            results.append(json.loads(line))
        except ValueError:
            wrong = wrong or f"printed no result: {line[:100]}"
    return results, wrong


def run_all(programs, known, options, keep):
    """Each program's results go to `keep` as soon as it has ended: a run of half an hour may be broken off."""
    results, failures, times = [], [], []
    for number, name in enumerate(programs, 1):
        begun = time.monotonic()
        print(f"running {name} ({number} of {len(programs)})", file=sys.stderr)
        found, wrong = run(os.path.join(options.programs, name), options)
        times.append((name, time.monotonic() - begun))
        strangers = [result["name"] for result in found if result["name"] not in known[name]]
        if strangers and not wrong:
            wrong = f"tests/bench/rows.txt lacks its {' '.join(strangers)}"
        if wrong:
            failures.append(f"{name}: {wrong}")
            print(failures[-1], file=sys.stderr)
        for result in found:
            result["program"] = name
        keep(found)
        results += found
    return results, failures, times


# ---- showing ----

def cell(value):
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def print_table(results):
    rows = [[title for _, title in COLUMNS]]
    rows += [[cell(result.get(key)) for key, _ in COLUMNS] for result in results]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def print_details(results):
    for result in results:
        parts = [text.format(cell(result[key])) for key, text in DETAILS if key in result]
        parts += [f"{size:,}: {cell(value)}" for size, value in result.get("series", [])]
        parts += [f"peer's {size:,}: {cell(value)}" for size, value in result.get("peer_series", [])]
        if parts or "note" in result:
            print(f"{result['name']}: {', '.join(parts)}{'; ' if parts and 'note' in result else ''}{result.get('note', '')}")


def write_json(file, results, run_of_all):
    for result in results:
        file.write(json.dumps({**result, **run_of_all}) + "\n")
    file.flush()


def open_json(path):
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        sys.exit(f"dev: cannot write {path}: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("programs", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a program, or a row of docs/BENCHMARKS.md; without any: all of them")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds: all within 4 minutes")
    parser.add_argument("--trace", metavar="FILE", help="for hit_rate: keys to replay, one a line, or CSV with a column `key`")
    parser.add_argument("--json", metavar="FILE", help="write one JSON object a line there")
    options = parser.parse_intermixed_args()
    known = rows_of_programs(options.programs)
    programs = programs_for(options.names, known)
    if options.trace is not None:
        check_trace(options.trace, programs)
    run_of_all = {"quick": options.quick, "date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions(),
                  "load_average": load_average()}
    with open_json(options.json or os.devnull) as file:
        print(run_of_all["machine"])
        print(f"{run_of_all['versions']}; load average {load_average()}{'; quick' if options.quick else ''}", flush=True)
        results, failures, times = run_all(programs, known, options, lambda found: write_json(file, found, run_of_all))
    if results:
        print_table(results)
        print()
        print_details(results)
    print(f"\ntime: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in times)}; "
          f"in all {sum(seconds for _, seconds in times):.0f} s; load average {load_average()}")
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures or not results else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("dev: broken off; --json has what ended before")
