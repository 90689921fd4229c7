#!/usr/bin/env python3
"""Runs all tests in every preset given and counts the cases that really ran; called by `./dev test`.

usage: run_tests.py PRESET,... [NAME...]   (from the top of the repository, after building)

The tests are those that the build registered with ctest: cmocka programs, which print TAP here, one line a case. A program that
crashed, timed out or printed no plan is a failure, and so is every case of a plan that never came to its line.
Beside them, `demo` is the main job (`./dev run --once`) from each preset's programs, and `criteria`, when all are run, looks
whether docs/CRITERIA.md names tests that ran and passed (criteria.py).
The last line is `N passed, N failed` (and `, N skipped`, if any). Exit code 0: something ran and nothing failed.
"""
import collections
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

import criteria

PLAN = re.compile(r"^1\.\.(\d+)$")
CASE = re.compile(r"^(ok|not ok) (\d+)(?: -)? (.*)$")
ENDED = re.compile(r"^ *\d+/\d+ Test +#\d+: (\S+) \.*[ *]*(\S.*?) +[\d.]+ sec$")
# What ctest says beside that, and our own report says better.
QUIET = re.compile(r"^(Internal ctest| +Start +\d|$|The following tests FAILED|\s+\d+ - |Errors while|Output from|Use \"|Total Test)")
DEMO_SECONDS = 120
ENVIRONMENT = {
    "CMOCKA_MESSAGE_OUTPUT": "TAP",
    "ASAN_OPTIONS": "halt_on_error=1:abort_on_error=0:detect_leaks=1:detect_stack_use_after_return=1:exitcode=99",
    "LSAN_OPTIONS": "print_suppressions=0:suppressions=" + os.path.abspath("tests/support/daemon_leaks.supp"),
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=99",
}


class Tally:
    def __init__(self):
        self.passed = self.skipped = 0
        self.failures = []
        self.cases = {True: collections.defaultdict(set), False: collections.defaultdict(set)}  # by "preset/program"

    def fail(self, name, output):
        self.failures.append((name, output))

    def note(self, program, case, passed):
        self.cases[passed][program].add(case)

    def of_preset(self, preset, passed):
        """Cases by program; a program that failed as a whole has a failed case without a name."""
        found = {name.split("/")[1]: cases for name, cases in self.cases[passed].items() if name.startswith(preset + "/")}
        for name, _ in self.failures if not passed else ():
            where = name.split(":")[0].split("/")
            if where[0] == preset:
                found.setdefault(where[1], set()).add("")
        return found


def reason_of(lines, number):
    """What cmocka says below a failed case: in the summary, too, since the whole output may be long and get cut."""
    reason = []
    for line in lines[number + 1 : number + 4]:
        if not line.startswith("# "):
            break
        reason.append(line[2:].strip()[:300])
    return ": " + " | ".join(reason) if reason else ""


def count_program(tally, program, ended_well, why, output):
    """Counts the TAP lines of one program. ended_well: it returned 0 in time."""
    planned = seen = failed = 0
    lines = output.splitlines()
    for number, line in enumerate(lines):
        plan, case = PLAN.match(line), CASE.match(line)
        if plan:
            planned += int(plan[1])
        elif case and case[3].startswith("# SKIP"):  # cmocka 1.1.5 prints "not ok" for these
            seen += 1
            tally.skipped += 1
        elif case and case[1] == "ok":
            seen += 1
            tally.passed += 1
            tally.note(program, case[3], True)
        elif case:
            seen += int(case[2]) > 0  # 0: a group's set-up or tear-down
            failed += 1
            tally.note(program, case[3], False)
            tally.fail(f"{program}: {case[3]}{reason_of(lines, number)}", output)
    if planned == 0:
        tally.fail(f"{program}: printed no TAP plan ({why})", output)
        return
    for _ in range(planned - seen):
        tally.fail(f"{program}: a case did not come to its end ({why})", output)
    if not ended_well and failed == 0 and planned <= seen:
        tally.fail(f"{program}: every case was fine, but the program was not ({why})", output)


def registered(preset):
    shown = subprocess.run(["ctest", "--test-dir", f"build/{preset}", "--show-only=json-v1"],
                           stdout=subprocess.PIPE, check=True)
    return [test["name"] for test in json.loads(shown.stdout)["tests"]]


def follow(command):
    """Runs ctest, shows a line for each program, and returns how those that failed ended (Timeout, Subprocess aborted...)."""
    endings = {}
    with subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as ctest:
        for line in ctest.stdout:
            ended = ENDED.match(line)
            if ended:
                print(line, end="", flush=True)
                if ended[2] != "Passed":
                    endings[ended[1]] = ended[2].lower()
            elif not QUIET.match(line):
                print(line, end="", flush=True)
    return endings


def run_programs(tally, preset, names):
    junit = os.path.abspath(f"build/{preset}/junit.xml")
    if os.path.exists(junit):
        os.remove(junit)
    command = ["ctest", "--test-dir", f"build/{preset}", "--output-junit", junit, "--no-tests=error",
               "--parallel", str(os.cpu_count() or 1),
               "--test-output-size-passed", "10000000", "--test-output-size-failed", "10000000",
               "-R", "^(" + "|".join(re.escape(name) for name in names) + ")$"]
    endings = follow(command)
    left = set(names)
    for case in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
        output = case.findtext("system-out") or ""
        why = endings.get(case.get("name"), "exit code 0")
        left.discard(case.get("name"))
        count_program(tally, f"{preset}/{case.get('name')}", case.get("status") == "run", why, output)
    for name in sorted(left):
        tally.fail(f"{preset}/{name}: ctest did not run it", "")


def run_demo(tally, preset):
    name = f"{preset}/demo"
    print(f"{name}: ./dev run --once, about 10 s", flush=True)
    command = ["bash", "examples/demo/demo.sh", f"build/{preset}/bin", "--once"]
    try:

        demo = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        output, _ = demo.communicate(timeout=DEMO_SECONDS)
    except subprocess.TimeoutExpired:
        demo.terminate()  # the script's trap ends what it started
        output, _ = demo.communicate()
        tally.fail(f"{name}: did not end within {DEMO_SECONDS} s", output)
        return
    if demo.returncode == 0:
        tally.passed += 1
        tally.note(name, "demo", True)
    else:
        tally.fail(f"{name}: exit code {demo.returncode}", output)


def check_criteria(tally, preset):
    wrong = criteria.problems(tally.of_preset(preset, True), tally.of_preset(preset, False))
    if wrong:
        tally.fail(f"{preset}/criteria: {criteria.PAGE} does not hold", "\n".join(wrong))
    else:
        tally.passed += 1


def report(tally):
    shown = set()
    for name, output in tally.failures:
        if output and output not in shown:  # once, however many of its cases failed
            shown.add(output)
            print(f"\n---- output of {name.split(':')[0]}\n{output.rstrip()}")
    if tally.failures:
        print("\nfailed:")
    for name, times in collections.Counter(name for name, _ in tally.failures).items():
        print(f"  {name}" + (f" ({times} of them)" if times > 1 else ""))
    line = f"{tally.passed} passed, {len(tally.failures)} failed"
    print(line + (f", {tally.skipped} skipped" if tally.skipped else ""), flush=True)


def main():
    presets, wanted = sys.argv[1].split(","), sys.argv[2:]
    tally = Tally()
    names = {preset: registered(preset) for preset in presets}  # some tests are of one preset only
    there = ["demo"] + list(dict.fromkeys(name for some in names.values() for name in some))
    unknown = [name for name in wanted if name not in there]
    if unknown:
        sys.exit(f"dev: no test {', '.join(unknown)}; there are: {' '.join(there)}")
    for preset in presets:
        chosen = [name for name in names[preset] if not wanted or name in wanted]
        if chosen:
            run_programs(tally, preset, chosen)
    for preset in presets:
        if not wanted or "demo" in wanted:
            run_demo(tally, preset)
        if not wanted:
            check_criteria(tally, preset)
    report(tally)
    return 0 if tally.passed and not tally.failures else 1


if __name__ == "__main__":
    sys.exit(main())
