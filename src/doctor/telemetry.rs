//! What NVML answers here: every reading of every GPU, there or absent with its reason.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::doctor::Examination;
use crate::record::diagnosis::{Check, CheckResult};
use crate::telemetry::Source;
use crate::telemetry::nvml::Library;
use crate::telemetry::select::Selected;

/// How long a GPU may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const SECTION: &str = "telemetry";
/// Readings without which no level can be judged by its GPU.
const NEEDED: [&str; 4] = ["power_w", "sm_clock_mhz", "reasons", "memory_used_bytes"];

pub(super) fn examine(of: &Examination<'_>, keep: &mut dyn FnMut(Check)) {
    let library = match &of.telemetry {
        Ok(library) => library,
        Err(why) => {
            let said = of.libraries.nvml.as_ref().is_err_and(|absence| absence.to_string() == *why);
            let why = if said { "there is no NVML, as said above" } else { why };
            let check =
                Check::new(SECTION, "NVML readings", CheckResult::CouldNotRun, why, "Do what it says, or measure without telemetry");
            keep(Check { waits_for_gpu: !of.has_gpu(), ..check });
            return;
        }
    };
    let software = &library.inventory().software;
    keep(Check::ok(SECTION, "NVML", format!("version {}, driver {}, CUDA {}", software.nvml, software.driver, software.cuda)));
    for gpu in 0..library.inventory().gpus.len() {
        keep(readings(library, gpu));
    }
}

/// One GPU's, read on a thread of their own: a call that hangs must not stall the examination.
fn readings(library: &Library, gpu: usize) -> Check {
    let (source, named) = library.watch(&[Selected::whole(gpu)]);
    let name = named.first().map_or_else(|| format!("GPU {gpu}"), |named| format!("readings of {}", named.uuid));
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        let energy = serde_json::to_value(source.energy_j(0)).unwrap_or_default();
        // Counters of the hardware are read as the change since the look before.
        let _ = source.slow(0);
        // Nobody may be waiting any more.
        drop(answer.send([("energy_j", energy), ("", to_value(&source.fast(0))), ("", to_value(&source.slow(0)))]));
    });
    let Ok(all) = answered.recv_timeout(PATIENCE) else {
        let next = "See `dmesg` for XIDs; reset the GPU or reboot the node";
        return Check::new(SECTION, name, CheckResult::Failed, format!("a call to the driver hangs for more than {PATIENCE:?}"), next);
    };
    let (mut present, mut absent) = (0, Vec::new());
    for (path, value) in &all {
        count(path, value, &mut present, &mut absent);
    }
    let total = present + absent.len();
    let lacking = NEEDED.iter().any(|needed| absent.iter().any(|(path, _)| path == needed));
    let absent: Vec<_> = absent.iter().map(|(path, why)| format!("{path} ({why})")).collect();
    let what =
        if absent.is_empty() { format!("all {total} there") } else { format!("{present} of {total} there; absent: {}", absent.join(", ")) };
    if lacking {
        let next = "Levels cannot be judged by what this GPU does: update the driver, or run as a user who may read its counters";
        return Check::new(SECTION, name, CheckResult::Warning, what, next);
    }
    Check::ok(SECTION, name, what)
}

fn to_value(readings: &impl serde::Serialize) -> Value {
    serde_json::to_value(readings).unwrap_or_default()
}

/// A reading is a value, or an object that says why it is missing.
fn count(path: &str, value: &Value, present: &mut usize, absent: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => match fields.get("missing").and_then(Value::as_str) {
            Some(why) => absent.push((path.to_owned(), why.replace('_', " "))),
            None => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    count(&path, value, present, absent);
                }
            }
        },
        _ => *present += 1,
    }
}
