#!/usr/bin/env python3
"""Writes a sample trace for `./dev bench hit_rate --trace FILE`: Zipf-distributed reads, with scans between them.

usage: make_trace.py FILE [--keys N] [--reads N] [--alpha A] [--scan-every N] [--scan-keys N] [--seed S]

A FILE whose name ends in .csv gets the columns `time` and `key`; any other a key a line.
"""
import argparse
import csv
import itertools
import random


def reads(options):
    chance = random.Random(options.seed)
    weights = list(itertools.accumulate((rank + 1) ** -options.alpha for rank in range(options.keys)))
    scanned = itertools.cycle(range(options.keys, options.keys + 10 * max(options.scan_keys, 1)))
    for number in range(options.reads):
        if options.scan_every and number % options.scan_every == 0 and number:
            yield from itertools.islice(scanned, options.scan_keys)
        yield chance.choices(range(options.keys), cum_weights=weights)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--reads", type=int, default=50000)
    parser.add_argument("--alpha", type=float, default=0.9)
    parser.add_argument("--scan-every", type=int, default=5000, help="reads between two scans; 0: no scans")
    parser.add_argument("--scan-keys", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    keys = (f"proxy-{key}" for key in reads(options))
    with open(options.file, "w", encoding="utf-8", newline="") as file:
        if options.file.endswith(".csv"):
            csv.writer(file).writerows([("time", "key"), *enumerate(keys)])
        else:
            file.writelines(f"{key}\n" for key in keys)


if __name__ == "__main__":
    main()
