"""Measure nncc against other runtimes: same model, input and threads, in turn A B A B ... within one run.

    python benchmarks/bench.py --zoo FOLDER [--threads 1] [--models NAME ...] [--peers onnxruntime ...] [--rounds 12]
    python benchmarks/bench.py --table            # writes README's table, from benchmarks/results

Each contestant is a process of its own, idle while another one runs. A line of JSON a model is added to
``benchmarks/results/<processor>-<threads>.jsonl``: medians, and for each peer the median of the rounds' ratios
(peer's time / nncc's) with its quartiles. A ratio above 1 means that nncc is faster.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from peers import CONTESTANTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
START, END = "<!-- table -->", "<!-- end of table -->"
"""What README's table stands between."""
SECONDS = 0.25
"""What one contestant runs in one round, about."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", "zoo")))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--peers", nargs="*", default=[name for name in CONTESTANTS if name != "nncc"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--target", default="native")
    parser.add_argument("--table", action="store_true", help="write README's table and measure nothing")
    words = parser.parse_args()
    if words.table:
        readme = HERE.parent / "README.md"
        readme.write_text(with_table(readme.read_text()))
        return
    with (HERE / "models.toml").open("rb") as file:
        models = tomllib.load(file)
    peers = [name for name in words.peers if importlib.util.find_spec("MNN" if name == "mnn" else name)]
    for name in sorted(set(words.peers) - set(peers)):
        print(f"{name} is not installed: left out", file=sys.stderr)
    for name in words.models or models:
        path = find(models[name], words.zoo)
        if path is None:
            print(f"{name}: not in {words.zoo}: left out", file=sys.stderr)
            continue
        row = measure(name, path, models[name].get("shape"), words, peers)
        results = HERE / "results" / f"{re.sub(r'[^A-Za-z0-9]+', '-', processor()).strip('-')}-{words.threads}.jsonl"
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(line(row))


def find(entry: dict, zoo: Path) -> Path | None:
    """The model's file, if this machine has it."""
    if "light" in entry:
        import onnx

        path = Path(onnx.__file__).parent / "backend/test/data/light" / entry["light"]
    else:
        path = zoo / entry["file"]
    return path if path.is_file() else None


def measure(name: str, path: Path, shape: dict | None, words: argparse.Namespace, peers: list[str]) -> dict:
    """Compile, start all contestants, let them run in turn."""
    import nncc
    from nncc.frontend.onnx import import_onnx, save
    from nncc.verify import sample_inputs

    with tempfile.TemporaryDirectory(prefix="nncc-bench-") as folder:
        work = Path(folder)
        artifact = nncc.compile(path, words.target, output=work / "out", shape=shape, threads=words.threads)
        model = import_onnx(path, shape=shape, name=name)
        fixed = work / "fixed.onnx"
        save(model, fixed)
        np.savez(work / "inputs.npz", **sample_inputs(model))
        processes = {}
        for contestant in ["nncc", *peers]:
            file = artifact.library if contestant == "nncc" else fixed
            command = [sys.executable, str(HERE / "peers.py"), contestant, str(file), str(work / "inputs.npz")]
            process = subprocess.Popen(
                [*command, str(words.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            said = ""
            while said != "ready\n":  # converters are talkative
                said = process.stdout.readline()
                if not said:
                    print(f"{name}: {contestant} failed: {process.stderr.read().strip()[-300:]}", file=sys.stderr)
                    break
            if said:
                processes[contestant] = process
        counts = {who: max(1, int(SECONDS / statistics.median(turn(p, 5)))) for who, p in processes.items()}
        rounds = [
            {who: statistics.median(turn(p, counts[who])) for who, p in processes.items()} for _ in range(words.rounds)
        ]
        for process in processes.values():
            process.stdin.close()
            process.wait()
    versions = {who: importlib.metadata.version(who) for who in processes}
    return {
        "model": name,
        "threads": words.threads,
        "processor": processor(),
        "target": words.target,
        "milliseconds": {who: round(1e3 * statistics.median(r[who] for r in rounds), 4) for who in processes},
        "ratios": {
            who: [round(q, 3) for q in quartiles([r[who] / r["nncc"] for r in rounds])]
            for who in processes
            if who != "nncc"
        },
        "versions": versions,
        "rounds": words.rounds,
    }


def turn(process: subprocess.Popen, count: int) -> list[float]:
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    words = set(re.search(r"flags\s*:\s*(.+)", text).group(1).split()) if "flags" in text else set()
    vectors = "AVX-512" if "avx512f" in words else "AVX2" if "avx2" in words else ""
    return " ".join(filter(None, [found.group(1).strip() if found else platform.machine(), vectors]))


def line(row: dict) -> str:
    times = "  ".join(f"{who} {ms:.3g}" for who, ms in row["milliseconds"].items())
    ratios = "  ".join(f"{who} {mid:.2f} ({low:.2f}-{high:.2f})" for who, (low, mid, high) in row["ratios"].items())
    return f"{row['model']:24} ms: {times}   ratios: {ratios}"


def with_table(readme: str) -> str:
    """README's text with the table made anew."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{table()}{END}{rest.split(END)[1]}"


def table() -> str:
    """The newest row of each model, processor and thread count, as Markdown."""
    newest: dict[tuple, dict] = {}
    for path in sorted((HERE / "results").glob("*.jsonl")):
        for text in path.read_text().splitlines():
            row = json.loads(text)
            newest[row["processor"], row["threads"], row["model"]] = row
    out = []
    for processor_, threads in sorted({key[:2] for key in newest}):
        rows = [row for key, row in newest.items() if key[:2] == (processor_, threads)]
        peers = sorted({peer for row in rows for peer in row["ratios"]})
        out += [f"{processor_}, {threads} thread{'s' * (threads > 1)}, float32, milliseconds (median):", ""]
        out += [f"| model | nncc | {' | '.join(peers)} | best peer / nncc |", f"|---|{'---:|' * (len(peers) + 2)}"]
        best = []
        for row in rows:
            ratio = min((r[1] for r in row["ratios"].values()), default=float("nan"))
            best.append(ratio)
            cells = [f"{row['milliseconds'][peer]:.3g}" if peer in row["milliseconds"] else "" for peer in peers]
            out.append(f"| {row['model']} | {row['milliseconds']['nncc']:.3g} | {' | '.join(cells)} | {ratio:.2f} |")
        out += [f"| geometric mean | |{' |' * len(peers)} {statistics.geometric_mean(best):.2f} |", ""]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
