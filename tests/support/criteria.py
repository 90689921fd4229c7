"""Checks docs/CRITERIA.md against a run of the tests: every criterion is there, and every test that it names ran and passed.

A criterion is a row of a table, `| FR-001 | … |`. A test is named in backticks: `program_test` (all of its cases),
`program_test/case` (a * stands for anything), or `demo`; `bench NAME` is a benchmark, which has to exist. A row without a
test says "later".
"""
import fnmatch
import os
import re

PAGE = "docs/CRITERIA.md"
EXPECTED = ([f"US{n}" for n in range(1, 7)] + [f"SC-{n:03}" for n in range(1, 12)]
            + [f"FR-{n:03}" for n in range(1, 26) if n != 19])
ROW = re.compile(r"^\| *((?:US|SC-|FR-)\d+) *\|(.*)$")
TEST = re.compile(r"`(demo|[a-z0-9_]+_test)(?:/([A-Za-z0-9_*]+))?`")
BENCH = re.compile(r"`bench ([a-z0-9_]+)`")


def test_problem(program, case, passed, failed):
    """Says what is wrong with one name, or nothing. passed, failed: case names by program."""
    if program not in passed and program not in failed:
        return f"{program} did not run"
    pattern = case or "*"
    if fnmatch.filter(failed.get(program, ()), pattern):
        return f"{program}/{pattern} failed"
    if not fnmatch.filter(passed.get(program, ()), pattern):
        return f"{program} has no case {pattern} that passed"
    return None


def problems(passed, failed):
    """A list of lines; empty: the page holds."""
    found, seen = [], set()
    with open(PAGE, encoding="utf-8") as page:
        lines = page.read().splitlines()
    for line in lines:
        row = ROW.match(line)
        tests, benches = TEST.findall(line), BENCH.findall(line)
        where = row[1] if row else "text"
        if row:
            seen.add(row[1])
            if not tests and "later" not in line:
                found.append(f"{where}: names no test")
        wrong = [test_problem(program, case, passed, failed) for program, case in tests]
        wrong += [f"there is no benchmark {name}" for name in benches if not os.path.exists(f"tests/bench/{name}.c")]
        found += [f"{where}: {problem}" for problem in wrong if problem]
    found += [f"{name}: is not on the page" for name in EXPECTED if name not in seen]
    return found
