"""What `nncc tune` makes of models in a given time: the whole model beside itself without records.

    NNCC_ZOO=FOLDER python benchmarks/tune.py --models resnet18 --time-budget 10m --records FOLDER

Each run starts from what RECORDS holds; give an empty folder for what a first user gets. Rows go to
`results/tuning.jsonl`, and from there into README's table: `python benchmarks/bench.py --table`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench import processor
from models import chosen, models
from tables import RESULTS, TUNING

import nncc


def main() -> None:
    words = arguments()
    files, missing = chosen(words.models, words.zoo)
    for text in missing:
        print(text, file=sys.stderr)
    for name, path in files.items():
        row = tuned(name, path, words)
        with (RESULTS / TUNING).open("a") as file:
            file.write(json.dumps(row) + "\n")
        default, after = (row["milliseconds"][which] for which in ("default", "tuned"))
        print(f"{name}: {default:.3f} -> {after:.3f} ms, {row['trials']} trials")


def tuned(name: str, path: Path, words: argparse.Namespace) -> dict[str, Any]:
    """The row of one model; CalledProcessError where `nncc tune` fails."""
    command = [sys.executable, "-m", "nncc", "tune", str(path), "--target", words.target, "--json"]
    command += ["--threads", str(words.threads), "--time-budget", words.time_budget, "--records", str(words.records)]
    for input_, sizes in models()[name].get("shape", {}).items():
        command += ["--shape", f"{input_}={'x'.join(map(str, sizes))}"]
    facts = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    ratio = facts["ratio"]
    return {
        "model": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "target": words.target,
        "threads": words.threads,
        "budget": words.time_budget,
        "trials": facts["trials"],
        "failed": facts["failed"],
        "milliseconds": {who: 1e3 * seconds for who, seconds in facts["seconds"].items()},
        "ratio": [ratio["low"], ratio["median"], ratio["high"]] if ratio else None,
        "graph": facts["graph"],
        "roofline": facts["roofline"],
        "versions": {"nncc": nncc.__version__},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME")
    parser.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", ".")))
    parser.add_argument("--target", default="native")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time-budget", default="10m")
    parser.add_argument("--records", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
