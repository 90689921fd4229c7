#!/usr/bin/env python3
"""bench.py with programs of a line each: what it says and keeps. TAP."""
import json
import os
import subprocess
import sys
import tempfile

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.py")
ROW = {"name": "start_1m", "value": 1234567.0, "unit": "s", "peer": None, "peer_value": None, "ratio": None, "goal": "<= 1", "met": False}
PROGRAMS = {"start": f"#!/bin/sh\necho '{json.dumps(ROW)}'\n", "warm": "#!/bin/sh\necho 'no server' >&2; exit 1\n",
            "hit_rate": "#!/bin/sh\necho \"$@\" >&2; exit 1\n"}


def bench(directory, *arguments):
    return subprocess.run([sys.executable, BENCH, directory, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)


def refused(run, *words):
    """In one line, before anything ran."""
    return run.returncode == 1 and run.stdout == "" and "Traceback" not in run.stderr and all(word in run.stderr for word in words)


def results_are_kept_as_programs_end(directory, file):
    run = bench(directory, "start", "warm", "--json", file)
    with open(file, encoding="utf-8") as lines:
        kept = [json.loads(line) for line in lines]
    return (run.returncode == 1 and [(row["name"], row["program"], row["quick"]) for row in kept] == [("start_1m", "start", False)]
            and "1,234,567" in run.stdout and "failed: warm" in run.stdout and "no server" in run.stderr)


def a_file_that_cannot_be_written_is_told_before(directory, _file):
    return all(refused(bench(directory, "start", "--json", path), "dev: cannot write", path) for path in ("/nowhere/results", directory))


def an_unknown_name_gets_those_alike(directory, _file):
    return refused(bench(directory, "start_2m"), "no benchmark start_2m", "did you mean ", "start_1m?)", "hit_rate: hit_rate hit_rate_churn")


def a_trace_is_for_hit_rate_and_a_file(directory, file):
    with open(file, "w", encoding="utf-8") as trace:
        trace.write("a\na\n")
    taken = bench(directory, "hit_rate", "--trace", file)
    return (refused(bench(directory, "start", "--trace", file), "--trace is for hit_rate")
            and all(refused(bench(directory, "hit_rate", "--trace", path), "cannot read", path) for path in ("/nowhere/trace", directory))
            and f"--trace {file}" in taken.stderr)


def main():
    cases = [results_are_kept_as_programs_end, a_file_that_cannot_be_written_is_told_before, an_unknown_name_gets_those_alike,
             a_trace_is_for_hit_rate_and_a_file]
    failed = 0
    print(f"1..{len(cases)}")
    for number, case in enumerate(cases, 1):
        with tempfile.TemporaryDirectory(prefix="ptier-test-bench.") as work:
            directory = os.path.join(work, "programs")
            os.mkdir(directory)
            for name, text in PROGRAMS.items():
                with open(os.path.join(directory, name), "w", encoding="utf-8") as program:
                    program.write(text)
                os.chmod(program.name, 0o755)
            passed = case(directory, os.path.join(work, "file"))
        failed += not passed
        print(f"{'ok' if passed else 'not ok'} {number} - {case.__name__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
