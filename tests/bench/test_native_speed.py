"""The native engine beside what users write themselves: shape M, one stream, one thread, one run.

    pytest -m bench -s tests/bench/test_native_speed.py

`wavewn bench --shape M --baselines` prints the same race. The aims are those of a core with
AVX512-FP16 and VNNI; elsewhere float16 is a way to store weights, and gains less.
"""

import pytest

from wavewn.bench.lineup import Wish, baselines, contenders
from wavewn.bench.race import race
from wavewn.bench.subject import make_subject
from wavewn.cli.bench import race_table
from wavewn.engine.native import available, instruction_sets

AIMS = {"float16": 6, "int8": 16}  # times the best baseline


def why_not():
    """Say why the aims do not hold here; empty if they do."""
    if reason := available():
        return f"the native engine is not here: {reason}"
    if reason := instruction_sets()["avx512-fp16"]:
        return f"the aims are those of AVX512-FP16: {reason}"
    return ""


@pytest.mark.bench
@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_shape_m_is_many_times_faster_than_the_best_baseline(upsampling):
    subject = make_subject("M", upsampling)
    entries = contenders(subject, Wish(engines=("native",))) + baselines(subject)

    results = race(subject, entries, seconds=1.0, rounds=5)

    print("\n" + race_table(results))
    others = [row for row in results if row.engine != "native"]
    assert {row.engine for row in others} == {"reference", "numba", "onnxruntime"}
    best = max(row.samples_per_s for row in others)
    if reason := why_not():
        pytest.skip(f"measured, not judged: {reason}")
    reached = {row.precision: row.samples_per_s / best for row in results if row.engine == "native"}
    for precision, aim in AIMS.items():
        assert reached[precision] >= aim, f"{precision} is {reached[precision]:.1f} times the best"
