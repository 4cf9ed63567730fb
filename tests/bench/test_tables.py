"""The arithmetic of the benchmarks' tables: what they print is what their first lines promise, and what the pages show."""
import importlib.machinery
import importlib.util
import json
import pathlib
import sys

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"


def module(path):
    sys.path.insert(0, str((BENCH / path).parent))
    try:
        name = path.replace("/", "_").removesuffix(".py")
        spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(BENCH / path)))
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded
    finally:
        sys.path.pop(0)


def test_pytorchs_own_ratio_is_that_of_one_row():
    rate = {"PyTorch eager f32 dense": 1000, "PyTorch eager f32 MoD": 1750, "PyTorch compile f32 dense": 1400, "PyTorch compile f32 MoD": 2100,
            "Fathom f32 dense": 1000, "Fathom f32 MoD": 9000}
    assert module("train/run.py").own_ratio(rate) == (1.75, "PyTorch eager f32")


def runs(losses):
    return {seed: {"loss": loss, "loss_topk": loss, "bits_per_byte": 1, "block_fraction": 1, "tokens": 1} for seed, loss in losses.items()}


def test_the_seed_that_chose_the_rates_is_no_pair():
    table = module("quality/table.py")
    mod, dense = runs({2: 3.0, 3: 4.1, 4: 4.3}), runs({2: 5.0, 3: 4.0, 4: 4.0})
    mean, half, twin, pairs = table.paired(mod, dense, chose=2)
    assert (mean, twin, pairs) == (pytest.approx(0.2), 4.0, 2)
    assert half == pytest.approx(12.706 * (0.02 ** 0.5) / 2 ** 0.5)
    assert table.paired(runs({2: 3.0, 3: 4.1}), dense, chose=2) is None


def test_the_table_pairs_best_rates_and_equal_rates(capsys):
    table = module("quality/table.py")
    recipes = {"mod": {"model.fathom": {}}, "dense": {}}
    by = {"mod": {0.003: runs({2: 4.0, 3: 4.0, 4: 4.2}), 0.006: runs({2: 3.9, 3: 3.8, 4: 3.6})},
          "dense": {0.003: runs({2: 4.5, 3: 4.4, 4: 4.4}), 0.006: runs({2: 4.6, 3: 4.0, 4: 4.0})}}
    table.tables("some", by, recipes, {"model": {"hidden_size": 64}}, 1e14)
    pairs = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("Pairs")]
    assert pairs == ["Pairs of seeds beyond 2, mod@0.006 minus dense@0.003, each at its best rate", "Pairs of seeds beyond 2, mod@0.003 minus dense@0.003",
                     "Pairs of seeds beyond 2, mod@0.006 minus dense@0.006"]


def test_the_pages_show_the_tables_of_the_results_that_are_kept():
    bench, root = module("all"), BENCH.parent
    windows = [json.loads(path.read_text()) for path in sorted((BENCH / "results").glob("*.json"))]
    results = windows[-1]
    assert bench.readme(results) in (root / "README.md").read_text()
    page = (root / "docs/performance.md").read_text()
    tables = [table for table in bench.tables(results) if table.startswith(("| model", "| llama-1b", "| attention"))] + [bench.goals(windows)]
    threads = {run["threads"] for runs in results["parts"].values() for run in runs}
    assert len(tables) == 1 + 5 * len(threads) and [table for table in tables if table not in page] == []


def test_goals_are_reached_or_missed():
    bench = module("all")
    line = lambda work, rate, **more: {"work": work, "model": "dense", "tokens_per_second": rate, "share_of_limit": 0.7, "gb_per_second": rate, "gop_per_second": 2 * rate,
                                       "limit_gb_per_second": 100, "limit_gop_per_second": 400, "speedup": 1, "allowed_speedup": 1, **more}
    dense = {"threads": 2, "lines": [line("prompt 512", 300), line("generate 16, depth 16", 10), line("generate 16, batch 8, depth 16", 50, gb_per_second=10)],
             "peer": [{"work": "prompt 512", "tokens_per_second": 100}, {"work": "generate 16, depth 16", "tokens_per_second": 8}, {"work": "generate 16, batch 8, depth 16", "tokens_per_second": 40}]}
    routed = {"threads": 2, "lines": [line("prompt 512", 300), line("prompt 512", 500, model="MoD", speedup=1.7, allowed_speedup=2), line("generate 16, depth 16", 10),
                                      line("generate 16, depth 16", 19, model="MoD", speedup=1.9, allowed_speedup=2)]}
    started = {"threads": 2, "start": {"ours": {"seconds": 0.5, "resident_bytes": 9e6}, "peer": {"seconds": 0.4, "resident_bytes": 9e6}}}
    parts = {"llama-1b Q8_0": [dense], "llama-110m q8_0 every-second:0.125": [routed], "start small": [started]}
    found = {goal: (text, reached) for goal, text, reached in bench.goals_of({"parts": parts}, 2)}
    assert found == {
        "llama-1b Q8_0, decode: 80 % of bandwidth, and 1.2 times the peer where it is below 75 %": ("70 %, 1.25", False),
        "llama-1b Q8_0, prompt: 2.8 times the peer, and 50 % of the peak": ("3.00, 70 %", True),
        "llama-1b Q8_0, 8 texts: 1.5 times the peer": ("1.25", False),
        # Alone 1 byte and 2 operations a token, together a fifth of the bytes: then arithmetic takes longer than reading.
        "llama-1b Q8_0, 8 texts over one: 0.8 of the roofline's": ("5.00 of 2.00, 2.50", True),
        "llama-110m q8_0 every-second:0.125, prompt 512: 0.92 of what is allowed": ("0.850", False),
        "llama-110m q8_0 every-second:0.125, generate 16, depth 16: 0.90 of what is allowed": ("0.950", True),
        "start small, s: at most the peer's": ("0.50 of 0.40", False),
        "start small, MB: at most the peer's": ("9 of 9", True),
    }
    fast = {**dense, "lines": [dict(line, share_of_limit=1.5) for line in dense["lines"]]}  # 1.5 of a limit is no share of it
    assert "| 150 %, 1.25 (limit fell) |" in bench.goals([{"parts": {"llama-1b Q8_0": [fast]}}])
    assert "| **150 %, 1.25 (limit fell); 70 %, 1.25: missed** |" in bench.goals([{"parts": {"llama-1b Q8_0": [fast]}}, {"parts": {"llama-1b Q8_0": [dense]}}])
    better = {"threads": 2, "lines": [dict(line, speedup=2, allowed_speedup=2) for line in routed["lines"]]}
    assert "| **0.850: missed** |" in bench.goals([{"parts": parts}])
    table = bench.goals([{"parts": parts}, {"parts": {**parts, "llama-110m q8_0 every-second:0.125": [better]}}])
    assert "| 0.850; 1.000: missed in 1 of 2 |" in table and "| 0.950; 1.000 |" in table and "| **0.50 of 0.40; 0.50 of 0.40: missed** |" in table
