"""`top`, as `benchmarks.store` times it: the ten best of a sweep with all that a table shows of them, then one line.

python -m benchmarks.store_top URI METRIC
"""

import json
import resource
import sys

from benchmarks.machine import peak_memory
from tune.store.results_store import ResultsStore


def main() -> None:
    """Rank, and print the first trial, the number of entries, the peak of memory and the processor's seconds."""
    uri, metric = sys.argv[1:]
    ranked = ResultsStore(uri).rank({metric: "max"}, limit=10)
    for entry in ranked:
        print(entry, file=sys.stderr)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"first": ranked[0].trial, "shown": len(ranked), "memory": peak_memory()}
    print(json.dumps(told | {"cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
