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
    results = json.loads(max((BENCH / "results").glob("*.json")).read_text())
    assert bench.readme(results) in (root / "README.md").read_text()
    page = (root / "docs/performance.md").read_text()
    tables = [table for table in bench.tables(results) if table.startswith("| model") or table.startswith("| llama-1b")]
    threads = {run["threads"] for runs in results["parts"].values() for run in runs}
    assert len(tables) == 4 * len(threads) and [table for table in tables if table not in page] == []
