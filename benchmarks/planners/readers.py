"""What each planner's own code makes of an export, as JSON on standard output. Run by check.py with the planner's Python."""

import json
import sys
from pathlib import Path


def dynamo_1_4(profile, fpm, isl, osl, ttft, itl):
    """The planner of ai-dynamo 1.1 and later: files become records of passes, records become lines."""
    from dynamo.planner.config.defaults import SubComponentType
    from dynamo.planner.core.perf_model import DecodeRegressionModel, PrefillRegressionModel
    from dynamo.planner.monitoring import perf_metrics

    answer = json.loads(Path(fpm).read_text())
    out = {}
    for source in ["files", "get_perf_metrics"]:
        models = {}
        for kind, model in [(SubComponentType.PREFILL, PrefillRegressionModel), (SubComponentType.DECODE, DecodeRegressionModel)]:
            if source == "files":
                records = perf_metrics._convert_profiling_data_to_fpms(profile, kind)
            else:
                records = perf_metrics._extract_fpms_from_benchmark(answer, kind)
            fitted = model(max_num_fpm_samples=len(records) + 10)
            fitted.load_benchmark_fpms(records)
            ready = fitted._ensure_fitted()
            models[kind.value] = {
                "records": len(records),
                "ready": bool(ready),
                "fixed": float(fitted._model.intercept_),
                "slopes": [float(slope) for slope in fitted._model.coef_],
            }
            if ready and kind == SubComponentType.PREFILL:
                models["prefill"]["rps"], models["prefill"]["ttft_ms"] = fitted.find_best_engine_prefill_rps(float(ttft), float(isl))
            if ready and kind == SubComponentType.DECODE:
                context = float(isl) + float(osl) / 2
                rps, itl_ms = fitted.find_best_engine_decode_rps(float(itl), context, float(osl))
                models["decode"].update(rps=rps, itl_ms=itl_ms, most_kv=fitted._max_observed_kv)
        out[source] = models
    return out


def npz(path):
    """Every array of an archive, by NumPy itself."""
    import numpy

    with numpy.load(path, allow_pickle=False) as arrays:
        return {name: {"type": str(arrays[name].dtype), "shape": arrays[name].shape, "values": arrays[name].tolist()} for name in arrays}


def aic(table, tpot, rate):
    """Load matching of AIConfigurator."""
    import pandas
    from aiconfigurator.sdk.picking import pick_load_match

    picked = pick_load_match(pandas.read_csv(table), "agg", target_tpot=float(tpot), target_request_rate=float(rate))
    best = picked["best_config_df"].iloc[0]
    return {key: float(best[key]) for key in ["seq/s", "tpot", "replicas_needed", "total_gpus_needed", "concurrency"]}


def prometheus(path):
    """Gauges by Prometheus' own parser."""
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(Path(path).read_text())
    return {sample.name: {"labels": sample.labels, "value": sample.value} for family in families for sample in family.samples}


def yaml(path):
    import yaml as reader

    return list(reader.safe_load_all(Path(path).read_text()))


if __name__ == "__main__":
    print(json.dumps({"dynamo-1.4": dynamo_1_4, "npz": npz, "aic": aic, "prometheus": prometheus, "yaml": yaml}[sys.argv[1]](*sys.argv[2:])))
