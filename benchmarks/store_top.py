"""`top`, as `benchmarks.store` times it: the ten best of a sweep with all that a table shows of them, then one line.

Their differences from the best and from trial 0 are among it.

python -m benchmarks.store_top URI METRIC
"""

import json
import resource
import sys

from benchmarks.machine import peak_memory
from tune.comparison.ranked import compare_first
from tune.store.results_store import ResultsStore


def main() -> None:
    """Rank, and print the first trial, the number of entries, the peak of memory and the processor's seconds."""
    uri, metric = sys.argv[1:]
    found = compare_first(ResultsStore(uri), {metric: "max"})
    ranked = [one.entry for one in found.shown]
    if found.missing:
        raise RuntimeError(f"the terms of {found.missing} are missing")
    for one in found.shown:
        print(one, file=sys.stderr)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"first": ranked[0].trial, "shown": len(ranked), "memory": peak_memory()}
    print(json.dumps(told | {"cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
