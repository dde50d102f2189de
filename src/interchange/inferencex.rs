//! InferenceX's `agg_NAME.json`: one flat object a level, seconds. It is made from a vLLM result by
//! `utils/process_result.py`: every `*_ms` key over 1000 without its suffix, `*_intvty` as 1000 / TPOT in ms, and tokens/s per GPU.
//!
//! | There | Means (source) | Ours |
//! | --- | --- | --- |
//! | `tput_per_gpu` | prompt *and* output tokens/s over all GPUs | no rate of ours: calls/s are output tokens/s over `osl` |
//! | `output_tput_per_gpu` | output tokens/s over all GPUs; over the decoding ones in a split deployment | output tokens/s |
//! | `ttft`, `tpot`, `itl`, `e2el` | as in vLLM's result | see `interchange::vllm` |
//! | GPUs | `tp * pp * pcp_size`; `num_prefill_gpu + num_decode_gpu` in a split deployment | GPUs |

use serde_json::{Value, json};

use crate::interchange::cohort::Cohort;
use crate::interchange::error::ImportError;
use crate::interchange::export::origin;
use crate::interchange::foreign::Node;
use crate::interchange::spread::put;
use crate::interchange::vllm::{quantiles, summary};
use crate::record::imported::{Imported, Lack, Load, Point};
use crate::record::level::Offered;
use crate::record::run::RunRecord;

/// As reports name it.
pub(super) const NAME: &str = "InferenceX";

/// One level. Of an open-loop level `conc` is the mean number in flight, since the form knows closed loops only.
pub(super) fn document(run: &RunRecord, cohort: &Cohort<'_>) -> Value {
    let level = cohort.level;
    let devices = f64::from(level.per_device.devices.max(1));
    let conc = match level.offered {
        Offered::Closed { concurrency } => u64::from(concurrency),
        // Here and below: a float-to-integer `as` saturates.
        Offered::Open { .. } => (level.in_flight.mean.round() as u64).max(1),
    };
    let (prompt, output) = cohort.tokens();
    let completed = (level.counts.completed as f64).max(1.0);
    let (prompt_per_s, output_per_s) = (level.throughput.prompt_tokens_per_s, level.throughput.output_tokens_per_s);
    let document = json!({
        "hw": hardware(run),
        "conc": conc,
        "image": null,
        "model": run.target.model,
        "infmax_model_prefix": run.target.model,
        "framework": "plimsoll",
        "precision": run.target.precision,
        "spec_decoding": "none",
        "disagg": false,
        "isl": (prompt / completed).round() as u64,
        "osl": (output / completed).round() as u64,
        "is_multinode": false,
        // Each device holds the whole model: the divisor alone is what `tp` is for here.
        "tp": level.per_device.devices,
        "pp": 1,
        "dcp_size": 1,
        "pcp_size": 1,
        "ep": 1,
        "dp_attention": "false",
        "tput_per_gpu": (prompt_per_s + output_per_s) / devices,
        "output_tput_per_gpu": output_per_s / devices,
        "input_tput_per_gpu": prompt_per_s / devices,
        "plimsoll": origin(run, level),
    });
    let Value::Object(mut document) = document else { return Value::Null };
    let spreads = [("ttft", cohort.ttft_ms()), ("tpot", cohort.tpot_ms()), ("itl", cohort.gaps_ms()), ("e2el", cohort.latency_ms())];
    for (name, spread) in &spreads {
        summary(&mut document, name, "", &spread.times(1e-3));
    }
    // Tokens/s of one user; the p99 of it is that of the slowest, since it is made from the p99 of TPOT.
    let tpot = &spreads[1].1;
    let values = [("mean", tpot.mean), ("median", tpot.at(50.0)), ("p90", tpot.at(90.0)), ("p95", tpot.at(95.0)), ("p99", tpot.at(99.0))];
    for (statistic, millis) in values {
        put(&mut document, format!("{statistic}_intvty"), millis.filter(|millis| *millis > 0.0).map(|millis| 1000.0 / millis));
    }
    Value::Object(document)
}

/// The first GPU's name, else the processor's.
fn hardware(run: &RunRecord) -> String {
    match run.node.telemetry.gpus().first().filter(|_| run.target.device.starts_with("cuda")) {
        Some(gpu) => gpu.name.clone(),
        None => format!("{} ({})", run.target.device, run.node.cpu_model),
    }
}

/// One point a document.
///
/// # Errors
/// When a field is missing or no such figure.
pub(super) fn read(file: &str, documents: &[Node<'_>]) -> Result<Imported, ImportError> {
    let points = documents.iter().map(point).collect::<Result<Vec<_>, _>>()?;
    let mut lacks = vec![Lack::FailuresNotCounted, Lack::FromTheSend, Lack::NoSloVerdict, Lack::NoInterval, Lack::CallsDerived];
    if documents.iter().any(|document| document.find("plimsoll").is_none()) {
        lacks.extend([Lack::RampIncluded, Lack::NoValidity]);
    }
    lacks.extend(points.iter().any(|point| point.itl_ms.at.is_empty()).then_some(Lack::NoChunkGaps));
    lacks.extend(points.iter().any(|point| point.ttft_ms.at.is_empty()).then_some(Lack::NoTtft));
    let model = documents.first().map(|document| document.text_of("model")).transpose()?.flatten();
    Ok(Imported { tool: NAME, version: None, file: file.to_owned(), model, lacks, points })
}

fn point(document: &Node<'_>) -> Result<Point, ImportError> {
    let size = |name: &str| document.find(name).map_or(Ok(1), |size| size.positive());
    let per_gpu = |name: &str| document.field(name)?.number();
    let total = per_gpu("tput_per_gpu")?;
    let (gpus, output) = match document.find("num_prefill_gpu").zip(document.find("num_decode_gpu")) {
        Some((prefill, decode)) => {
            let (prefill, decode) = (prefill.count()?, decode.count()?);
            let gpus = prefill.saturating_add(decode);
            // Output tokens are given over decoding GPUs there, prompt tokens over prefilling ones.
            (gpus, (total * gpus as f64 - per_gpu("input_tput_per_gpu")? * prefill as f64).max(0.0))
        }
        None => {
            document.field("tp")?;
            let gpus = u64::from(size("tp")?).saturating_mul(u64::from(size("pp")?)).saturating_mul(u64::from(size("pcp_size")?));
            (gpus, per_gpu("output_tput_per_gpu")? * gpus as f64)
        }
    };
    let gpus = u32::try_from(gpus).ok().filter(|gpus| *gpus > 0).ok_or_else(|| document.wrong(format!("says `{gpus}` GPUs")))?;
    let osl = document.field("osl")?;
    let output_tokens = osl.number()?;
    if output_tokens < 1.0 {
        return Err(osl.wrong(format!("is `{output_tokens}`, so that calls cannot be told from tokens: an answer has one at least")));
    }
    let latency = |name: &str| quantiles(document, name, "", 1e3);
    Ok(Point {
        load: Load::Closed { concurrency: document.field("conc")?.positive()? },
        calls_per_s: output / output_tokens,
        output_tokens_per_s: Some(output),
        ttft_ms: latency("ttft")?,
        tpot_ms: latency("tpot")?,
        itl_ms: latency("itl")?,
        e2e_ms: latency("e2el")?,
        completed: None,
        failed: None,
        gpus: Some(gpus),
        mean_input_tokens: document.number_of("isl")?,
        mean_output_tokens: Some(output_tokens),
    })
}
