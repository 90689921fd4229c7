#!/usr/bin/env python3
"""Writes results of `./dev bench --json FILE` into docs/BENCHMARKS.md, and the growth of costs into docs/growth.svg.

usage: table.py FILE... (later files win, row by row)

In the table of rows the last four cells of each row with a result are replaced; others stay. Between the marks
"<!-- growth -->" and "<!-- /growth -->" the raw figures of growth are written anew, between those of "machines" where
the results are from. The drawing needs gnuplot. Exit code 1: a result has no row in the document.
"""
import json
import os
import re
import subprocess
import sys

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs")
DRAWN = [("growth_l1", "L1 get"), ("growth_expiry", "expiry"), ("growth_get", "L3 get"), ("growth_put", "put, in L3")]


def figure(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cells_of(result):
    ratio = "–" if result["ratio"] is None else f"{result['ratio']:.3g}"
    return [f"{figure(result['value'])} {result['unit']}", figure(result["peer_value"]), ratio, "yes" if result["met"] else "**no**"]


def fill_rows(text, results):
    """(The text with the results in it, the names of those that it has no row for.)"""
    missing = set(results)

    def fill(match):
        result = results.get(match.group(1))
        if not result:
            return match.group()
        missing.discard(match.group(1))
        return " | ".join(match.group().split(" | ")[:4] + cells_of(result)) + " |"

    return re.sub(r"^\| `(\w+)` \|.*$", fill, text, flags=re.MULTILINE), sorted(missing)


def between_marks(text, mark, content):
    return re.sub(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda match: match.group(1) + content + match.group(2), text,
                  flags=re.DOTALL)


def growth_table(results):
    rows = [result for result in results.values() if "series" in result]
    sizes = sorted({size for result in rows for size, _ in result["series"]})
    lines = ["| row | " + " | ".join(f"{size:,}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for result in rows:
        for key, whose in (("series", ""), ("peer_series", ", the peer")):
            values = dict(map(tuple, result.get(key, [])))
            if values:
                lines.append(f"| `{result['name']}`{whose} | " + " | ".join(figure(values.get(size)) for size in sizes) + " |")
    return "\n".join(lines) + "\n" if rows else ""


def draw(results, path):
    """Growth against the smallest size: ours with lines, peers dashed."""
    blocks, plots = [], []
    for number, (name, title) in enumerate(DRAWN, 1):
        for key, dash, whose in (("series", 1, ""), ("peer_series", 2, ", peer")):
            points = results.get(name, {}).get(key)
            if points:
                blocks.append(f"$d{len(blocks)} << E\n" + "\n".join(f"{x} {y / points[0][1]}" for x, y in points) + "\nE\n")
                plots.append(f'$d{len(blocks) - 1} with linespoints lc {number} dt {dash} pt 7 ps 0.4 title "{title}{whose}"')
    if not plots:
        return
    script = ('set terminal svg size 720,400 dynamic background rgb "white"\nset output "' + path + '"\n'
              'set logscale x\nset format x "10^{%T}"\nset xlabel "entries"\nset ylabel "CPU time of one, as a multiple"\n'
              "set key outside right\nset grid\nset yrange [0:]\n" + "".join(blocks) + "plot " + ", ".join(plots) + "\n")
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def machines(results):
    found = sorted({f"{result['machine']}; {result['versions']}; {result['date']}, load average {result['load_average']}{', quick' if result['quick'] else ''}"
                    for result in results.values()})
    return "".join(f"- {line}\n" for line in found)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    results = {}
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            results.update({result["name"]: result for result in map(json.loads, file)})
    document = os.path.join(DOCS, "BENCHMARKS.md")
    with open(document, encoding="utf-8") as file:
        text = file.read()
    text, missing = fill_rows(text, results)
    text = between_marks(text, "machines", machines(results))
    if any("series" in result for result in results.values()):
        text = between_marks(text, "growth", growth_table(results))
    with open(document, "w", encoding="utf-8") as file:
        file.write(text)
    draw(results, os.path.join(DOCS, "growth.svg"))
    if missing:
        sys.exit(f"docs/BENCHMARKS.md has no row for {', '.join(missing)}")


if __name__ == "__main__":
    main()
