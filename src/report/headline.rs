//! What a run was, and the number it was made for, in words shared by all forms of the report.

use crate::curve::saturation::Saturation;
use crate::record::finding::{Finding, Severity};
use crate::record::level::{LevelRecord, Purpose};
use crate::record::metric::metric;
use crate::record::node::GpuTelemetry;
use crate::record::run::{Headline, HeadlineStatus, RunRecord, RunStatus};
use crate::record::slo::SloSource;
use crate::record::telemetry::{Telemetry, WindowSummary};
use crate::report::number::{percent, signed, three};
use crate::report::paint::Tone;
use crate::report::server;

/// What was measured on what, as labels and values.
pub(super) fn header(run: &RunRecord) -> Vec<(&'static str, String)> {
    let (target, node, workload) = (&run.target, &run.node, &run.workload);
    let noun = target.device_noun();
    let devices = if target.devices == 1 { format!("1 {noun}") } else { format!("{} {noun}s", target.devices) };
    let quota = node.cpu_quota_cores.map_or(String::new(), |cores| format!(" (quota {cores})"));
    let memory = node.memory_bytes as f64 / f64::from(1 << 30);
    let mut rows = vec![
        ("run", format!("{}, {}, {}, plimsoll {}", run.id, run.created, status(run.status), run.version)),
        ("target", format!("{} ({}), {}, on {} ({devices})", target.model, target.kind, target.precision, target.device)),
        ("node", format!("{}: {}, {} cores{quota}, {} GiB", node.hostname, node.cpu_model, node.cores, three(memory))),
        ("telemetry", telemetry(run)),
        (
            "workload",
            format!(
                "{}: {} prompt and {} output tokens a call on average; arrivals: {}; seed {}",
                workload.name,
                three(workload.mean_input_tokens),
                three(workload.mean_output_tokens),
                workload.arrivals,
                run.seed
            ),
        ),
    ];
    rows.push(("source", workload.source.clone()));
    rows.extend(server::rows(run));
    let first = run.cold_start.first_request_ms.map_or(String::new(), |millis| format!(", first token after {} ms", three(millis)));
    let ready = if run.server.is_some() { "the server answered" } else { "weights ready" };
    rows.push(("cold start", format!("{ready} after {} s{first}", three(run.cold_start.load_s))));
    rows.extend(alone(run).map(|alone| ("alone", alone)));
    rows.extend(counted(run).map(|counted| ("counted", counted)));
    if let Some(slo) = slo(run) {
        rows.push(("SLO", slo));
    }
    let labels = labels(run);
    if !labels.is_empty() {
        rows.push(("labels", labels.join(" · ")));
    }
    rows
}

/// How near one request alone comes to what the device can do at most.
fn alone(run: &RunRecord) -> Option<String> {
    let need = run.decode_need?;
    let reference = run.levels.iter().find(|level| matches!(level.purpose, Purpose::Reference { .. }) && level.verdict.is_valid())?;
    let millis = reference.latency.tpot.raw.p50?;
    let seconds = millis / 1000.0;
    let beyond = if need.mbu(seconds) > 1.0 {
        "; above 100 % the weights fit the caches, or something else ran while the ceiling was measured"
    } else {
        ""
    };
    Some(format!(
        "a token takes {} ms: {} of the memory bandwidth ({} GB/s read, measured here), {} of the matrix rate ({} TFLOP/s){beyond}",
        three(millis),
        percent(need.mbu(seconds)),
        three(need.read_bytes_per_s / 1e9),
        percent(need.mfu(seconds)),
        three(need.flop_per_s / 1e12)
    ))
}

/// What the GPUs counted of the memory's traffic beside the MBU of the same window, and what their difference means.
fn counted(run: &RunRecord) -> Option<String> {
    let both = |level: &LevelRecord| Some((level.mbu?, (metric("dram_activity")?.read)(level)?));
    let (mbu, activity) = run.levels.iter().filter(|level| level.verdict.is_valid()).find_map(both)?;
    Some(format!(
        "{} DRAM activity over the same window, beside {} MBU: the GPU counts all traffic, prefill and pauses too, against the peak \
         of its data sheet; MBU has what a token must read, against the bandwidth measured here",
        percent(activity),
        percent(mbu)
    ))
}

/// Where GPU readings came from and of which GPUs, or why there are none.
fn telemetry(run: &RunRecord) -> String {
    let first = run.levels.first().map(|level| &level.telemetry);
    let is_own =
        |uuid: &str| run.node.telemetry.gpus().iter().any(|gpu| gpu.uuid == uuid || gpu.instances.iter().any(|cut| cut.uuid == uuid));
    if let Some(summary) = first.and_then(Telemetry::measured).filter(|summary| summary.gpus.iter().all(|gpu| !is_own(&gpu.uuid))) {
        return format!("DCGM exporter; {}", names(summary));
    }
    let inventory = match &run.node.telemetry {
        // Where it was looked for, and what to do, stands among the findings.
        GpuTelemetry::Unavailable { why } => return format!("unavailable: {}", why.split(" (looked in").next().unwrap_or(why)),
        GpuTelemetry::Available(inventory) => inventory,
    };
    let versions = format!("NVML {}, driver {}, CUDA {}", inventory.software.nvml, inventory.software.driver, inventory.software.cuda);
    match first {
        Some(Telemetry::Measured(summary)) => format!("{versions}; {}", names(summary)),
        Some(Telemetry::Unavailable { why }) => format!("unavailable: {why} ({versions})"),
        None => versions,
    }
}

fn names(summary: &WindowSummary) -> String {
    summary.gpus.iter().map(|gpu| format!("{} ({})", gpu.name, gpu.uuid)).collect::<Vec<_>>().join(", ")
}

/// Labels of the run and its number, each once.
fn labels(run: &RunRecord) -> Vec<&str> {
    let of_headline = run.headline.iter().flat_map(|headline| &headline.labels);
    let all = run.labels.iter().chain(&run.target.labels).chain(&run.workload.labels).chain(of_headline);
    let mut labels = Vec::<&str>::new();
    for label in all {
        if !labels.contains(&label.as_str()) {
            labels.push(label);
        }
    }
    labels
}

/// The objectives and who says so.
fn slo(run: &RunRecord) -> Option<String> {
    let slo = run.slo.as_ref()?;
    let source = match &slo.source {
        SloSource::Flag => "given".to_owned(),
        SloSource::Workload(name) => format!("workload {name}"),
        SloSource::ModelPreset(name) => format!("preset of {name}"),
        SloSource::IdleReference => "relative to the idle reference".to_owned(),
        SloSource::Default => "default SLO".to_owned(),
    };
    Some(format!("{slo} ({source})"))
}

/// The number, its doubts, and the plateau that it is not. Most important first.
pub(super) fn lines(run: &RunRecord, saturation: Option<&Saturation>) -> Vec<(Tone, String)> {
    let noun = run.target.device_noun();
    let mut lines = Vec::new();
    let headline = run.headline.as_ref();
    let rate = headline.and_then(|headline| headline.throughput_per_gpu);
    match (headline, rate) {
        (Some(headline), Some(rate)) => {
            let drifted = run.drift.is_some_and(|drift| drift.exceeded());
            let usable = !drifted && matches!(headline.status, HeadlineStatus::Confirmed | HeadlineStatus::BracketOnly);
            let (tone, lead) = if usable { (Tone::Strong, "throughput_per_gpu") } else { (Tone::Bad, "NOT USABLE: throughput_per_gpu") };
            lines.push((tone, format!("{lead} = {} calls/s per {noun}", three(rate))));
            lines.push((Tone::Usual, spread(headline)));
        }
        _ => lines.push((Tone::Bad, "no throughput_per_gpu".to_owned())),
    }
    if let Some(headline) = headline.filter(|headline| !headline.explanation.is_empty()) {
        lines.push((Tone::Usual, headline.explanation.clone()));
    }
    if headline.is_none() {
        lines.push((Tone::Usual, "the run ended before the search for the highest load within the SLO".to_owned()));
    }
    if let Some(slo) = slo(run) {
        lines.push((Tone::Usual, format!("within {slo}")));
    }
    if let Some(beside) = headline.and_then(|headline| beside(headline, noun)) {
        lines.push((Tone::Usual, beside));
    }
    if let Some(plateau) = saturation.and_then(|saturation| saturation.plateau) {
        let times = rate.filter(|rate| *rate > 0.0).map(|rate| format!(", {} times as much", three(plateau.calls_per_s_per_gpu / rate)));
        lines.push((
            Tone::Faint,
            format!(
                "The closed-loop plateau is {} calls/s per {noun}{}: reached with no SLO to keep. It is no capacity.",
                three(plateau.calls_per_s_per_gpu),
                times.unwrap_or_default()
            ),
        ));
    }
    if let Some(drift) = run.drift {
        let (tone, verdict) = match (drift.exceeded(), drift.resolved()) {
            (true, _) => (Tone::Bad, "too far: the number is invalid"),
            (false, true) => (Tone::Faint, "held still"),
            (false, false) => (Tone::Doubtful, "too noisy to tell whether it held still"),
        };
        let moved =
            format!("reference level first to last: {} % (limit {}), {verdict}", signed(drift.change() * 100.0), percent(drift.accepted()));
        lines.push((tone, moved));
    }
    let labels = labels(run);
    if !labels.is_empty() {
        lines.push((Tone::Doubtful, labels.join(" · ")));
    }
    lines
}

/// How sure the number is.
fn spread(headline: &Headline) -> String {
    // A rate that no run decides alone may be decided by all of them.
    let who = if headline.runs > 1 { "together they " } else { "" };
    let bracket = headline.bracket.map(|(passed, failed)| format!("{who}passed at {}, failed at {}", three(passed), three(failed)));
    match (headline.interval, bracket) {
        (Some(interval), bracket) => format!(
            "{:.0} % interval {} to {} over {} runs{}",
            interval.confidence * 100.0,
            three(interval.low),
            three(interval.high),
            headline.runs,
            bracket.map_or(String::new(), |bracket| format!("; {bracket}"))
        ),
        (None, Some(bracket)) => format!("interval: bracket only ({}); {bracket}", runs(headline.runs)),
        (None, None) => format!("interval: none ({})", runs(headline.runs)),
    }
}

fn runs(count: u32) -> String {
    if count == 1 { "1 run".to_owned() } else { format!("{count} runs") }
}

/// What goes with the number.
fn beside(headline: &Headline, noun: &str) -> Option<String> {
    let parts = [
        headline.output_tokens_per_s_per_gpu.map(|rate| format!("{} output tokens/s per {noun}", three(rate))),
        headline.goodput_per_gpu.map(|rate| format!("{} good calls/s per {noun}", three(rate))),
        headline.calls_in_flight_per_gpu.map(|calls| format!("{} calls in flight per {noun}", three(calls))),
    ];
    let parts = parts.into_iter().flatten().collect::<Vec<_>>();
    (!parts.is_empty()).then(|| format!("at that load: {}", parts.join(", ")))
}

fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Complete => "complete",
        RunStatus::Interrupted => "INTERRUPTED",
        RunStatus::OutOfBudget => "OUT OF BUDGET",
        RunStatus::Aborted => "ABORTED",
    }
}

/// A finding's weight in a word, and its tone.
pub(super) fn severity(finding: &Finding) -> (&'static str, Tone) {
    match finding.severity {
        Severity::Note => ("note", Tone::Faint),
        Severity::Warning => ("warning", Tone::Doubtful),
        Severity::Serious => ("SERIOUS", Tone::Bad),
    }
}
