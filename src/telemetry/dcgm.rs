//! A DCGM exporter as a source: GPUs of another node, as far as the exporter's fields go.
//!
//! A thread of its own reads the page once a second; readings come from the last page, and are none once it is old. The exporter collects
//! at a period of its own (30 s unless it is told otherwise, `-c 1000` for one second), which nothing here can see through: energy is read
//! over long windows only. An XID is seen when the field that keeps the last one changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::record::clocks::Limits;
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::{Activity, FaultCounters};
use crate::telemetry::Source;
use crate::telemetry::prometheus::series;
use crate::telemetry::sample::{Fast, Slow, XidEvent};
use crate::telemetry::scrape::{NoPage, Page};
use crate::telemetry::window::Named;

const PERIOD: Nanos = Nanos::from_secs(1);
/// A page older than this says nothing of now.
const OLD: Nanos = Nanos::from_secs(3);
/// What a stamp may be off is a period of the exporter at either end: about 3 % of this.
const ENERGY_SHORTEST: Nanos = Nanos::from_secs(60);
/// Faults that wait to be asked for.
const XIDS_MOST: usize = 64;
const MIB: f64 = 1_048_576.0;
/// Beginning of every field.
const FIELD: &str = "DCGM_FI_";
/// From here on numbers stand for "no value" in DCGM.
const BLANK: f64 = 9.0e18;

/// A GPU of an exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Its UUID.
    pub uuid: String,
    /// Its kind.
    pub name: String,
    /// Its number on its host.
    pub index: String,
    /// Its host.
    pub host: String,
    /// Whether it is cut into MIG instances.
    pub is_cut: bool,
}

/// An exporter that answers.
#[derive(Clone, Debug)]
pub struct Exporter {
    page: Page,
    gpus: Vec<Exported>,
}

/// An exporter that is none.
#[derive(Debug, thiserror::Error)]
pub enum NoExporter {
    /// It does not answer.
    #[error("cannot read the DCGM exporter: {0}. Check `--dcgm-url`")]
    Page(#[from] NoPage),
    /// It knows no GPU.
    #[error("{url} has no GPU of DCGM's (`DCGM_FI_DEV_...` with a UUID). Name the page of a DCGM exporter")]
    NoGpu {
        /// Which page.
        url: String,
    },
}

/// Fields of each GPU, by their names.
type Fields = Vec<(Exported, BTreeMap<String, f64>)>;

/// What a page says of each GPU, in its order.
fn fields(page: &str) -> Fields {
    let mut gpus = Fields::new();
    for one in series(page).filter(|one| one.name.starts_with(FIELD)) {
        let label = |name: &str| one.label(name).unwrap_or_default().to_owned();
        let uuid = label("UUID");
        if uuid.is_empty() {
            continue;
        }
        let place = gpus.iter().position(|(gpu, _)| gpu.uuid == uuid).unwrap_or_else(|| {
            let gpu = Exported { uuid, name: label("modelName"), index: label("gpu"), host: label("Hostname"), is_cut: false };
            gpus.push((gpu, BTreeMap::new()));
            gpus.len() - 1
        });
        let (gpu, values) = &mut gpus[place];
        gpu.is_cut |= one.label("GPU_I_ID").is_some_and(|id| !id.is_empty());
        // Of a GPU that is cut the exporter repeats what is known of the whole: once is enough.
        values.entry(one.name.to_owned()).or_insert(one.value);
    }
    gpus
}

impl Exporter {
    /// Looks at the page for the first time.
    ///
    /// # Errors
    /// When it does not answer, or has no GPU.
    pub fn open(page: Page) -> Result<Self, NoExporter> {
        let gpus = fields(&page.get()?).into_iter().map(|(gpu, _)| gpu).collect::<Vec<_>>();
        if gpus.is_empty() { Err(NoExporter::NoGpu { url: page.url() }) } else { Ok(Self { page, gpus }) }
    }

    /// Its GPUs, in its order.
    #[must_use]
    pub fn gpus(&self) -> &[Exported] {
        &self.gpus
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.page.url()
    }

    /// A source of the GPUs at these places, and what they are called; `at_start` is what its thread does first.
    #[must_use]
    pub fn watch(&self, places: &[usize], clock: Monotonic, at_start: fn()) -> (DcgmSource, Vec<Named>) {
        let gpus = places.iter().map(|place| &self.gpus[*place]);
        let named = |gpu: &Exported| Named {
            uuid: gpu.uuid.clone(),
            name: gpu.name.clone(),
            sm_clock_max_mhz: Reading::none(Missing::NotSupported),
        };
        let source = DcgmSource::of(gpus.clone().map(|gpu| gpu.uuid.clone()).collect(), clock);
        let (page, shared) = (self.page.clone(), Arc::clone(&source.shared));
        let started = thread::Builder::new().name("telemetry-dcgm".to_owned()).spawn(move || {
            at_start();
            let mut due = clock.now();
            while !shared.stopped.load(Ordering::Relaxed) {
                if let Ok(text) = page.get() {
                    shared.takes(clock.now(), &text);
                }
                due = (due + PERIOD).max(clock.now());
                thread::sleep(Duration::from_nanos(due.since(clock.now()).0));
            }
        });
        // Without its thread no page comes, and readings have a reason instead of a value.
        drop(started);
        (source, gpus.map(named).collect())
    }
}

/// GPUs of an exporter. Dropped, its thread ends on its own.
#[derive(Debug)]
pub struct DcgmSource {
    shared: Arc<Shared>,
    clock: Monotonic,
}

#[derive(Debug)]
struct Shared {
    /// UUIDs of the watched GPUs.
    uuids: Vec<String>,
    last: Mutex<Last>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Last {
    at: Option<Nanos>,
    /// By place among the watched GPUs; empty where the page no longer has it.
    values: Vec<BTreeMap<String, f64>>,
    xids: VecDeque<XidEvent>,
}

impl Shared {
    /// A panic while it was held leaves a page that is whole.
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, at: Nanos, page: &str) {
        let fields = fields(page);
        let of = |uuid: &String| fields.iter().find(|(gpu, _)| gpu.uuid == *uuid).map(|(_, values)| values.clone());
        let values = self.uuids.iter().map(|uuid| of(uuid).unwrap_or_default()).collect::<Vec<_>>();
        let xid = |values: &BTreeMap<String, f64>| values.get("DCGM_FI_DEV_XID_ERRORS").map_or(0, |code| *code as u64);
        let mut last = self.last();
        let before = std::mem::replace(&mut last.values, values);
        for (gpu, before) in before.iter().enumerate() {
            let code = xid(&last.values[gpu]);
            if code != 0 && code != xid(before) && last.xids.len() < XIDS_MOST {
                last.xids.push_back(XidEvent { gpu, code });
            }
        }
        last.at = Some(at);
    }
}

impl DcgmSource {
    /// The GPUs of these UUIDs, with no page yet.
    fn of(uuids: Vec<String>, clock: Monotonic) -> Self {
        Self { shared: Arc::new(Shared { uuids, last: Mutex::default(), stopped: AtomicBool::new(false) }), clock }
    }

    /// Fields of a GPU in the last page, where that is of now.
    fn values(&self, gpu: usize) -> Result<BTreeMap<String, f64>, Missing> {
        let last = self.shared.last();
        let at = last.at.ok_or(Missing::NoSample)?;
        let values = last.values.get(gpu).filter(|values| !values.is_empty()).ok_or(Missing::Failed)?;
        if self.clock.now().since(at) > OLD { Err(Missing::Failed) } else { Ok(values.clone()) }
    }
}

impl Drop for DcgmSource {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// A field, times `unit`.
fn field(values: &Result<BTreeMap<String, f64>, Missing>, name: &str, unit: f64) -> Reading<f64> {
    let values = match values {
        Ok(values) => values,
        Err(missing) => return Reading::none(*missing),
    };
    let value = values.get(&format!("{FIELD}{name}")).ok_or(Missing::NotSupported);
    value.and_then(|value| if value.is_finite() && *value < BLANK { Ok(value * unit) } else { Err(Missing::Failed) }).into()
}

impl Source for DcgmSource {
    fn energy_j(&self, gpu: usize) -> Reading<f64> {
        field(&self.values(gpu), "DEV_TOTAL_ENERGY_CONSUMPTION", 1e-3)
    }

    fn fast(&self, gpu: usize) -> Fast {
        let values = self.values(gpu);
        let field = |name, unit| field(&values, name, unit);
        let newer = field("DEV_CLOCKS_EVENT_REASONS", 1.0);
        let reasons = if newer.get().is_some() { newer } else { field("DEV_CLOCK_THROTTLE_REASONS", 1.0) };
        Fast {
            power_w: field("DEV_POWER_USAGE", 1.0),
            power_instant_w: field("DEV_POWER_USAGE_INSTANT", 1.0),
            sm_clock_mhz: field("DEV_SM_CLOCK", 1.0).map(|clock| clock as u32),
            memory_clock_mhz: field("DEV_MEM_CLOCK", 1.0).map(|clock| clock as u32),
            reasons: reasons.map(|bits| bits as u64),
            temperature_c: field("DEV_GPU_TEMP", 1.0).map(|degrees| degrees as u32),
            memory_temperature_c: field("DEV_MEMORY_TEMP", 1.0).map(|degrees| degrees as u32),
            busy: field("DEV_GPU_UTIL", 0.01),
            memory_used_bytes: field("DEV_FB_USED", MIB).map(|bytes| bytes as u64),
        }
    }

    fn slow(&self, gpu: usize) -> Slow {
        let values = self.values(gpu);
        let field = |name, unit| field(&values, name, unit);
        let count = |name| field(name, 1.0).map(|count| count as u64);
        let none = Reading::none(Missing::NotSupported);
        Slow {
            limits: Limits { power_w: field("DEV_POWER_MGMT_LIMIT", 1.0), ..Limits::default() },
            faults: FaultCounters {
                ecc_corrected: count("DEV_ECC_SBE_VOL_TOTAL"),
                ecc_uncorrected: count("DEV_ECC_DBE_VOL_TOTAL"),
                remapped_corrected: count("DEV_CORRECTABLE_REMAPPED_ROWS"),
                remapped_uncorrected: count("DEV_UNCORRECTABLE_REMAPPED_ROWS"),
                pcie_replays: count("DEV_PCIE_REPLAY_COUNTER"),
                nvlink_replays: none,
                nvlink_recoveries: none,
                nvlink_crc_errors: none,
            },
            processes: Reading::none(Missing::NotSupported),
            nvlinks_up: Reading::none(Missing::NotSupported),
            activity: Activity {
                dram: field("PROF_DRAM_ACTIVE", 1.0),
                sm: field("PROF_SM_ACTIVE", 1.0),
                tensor: field("PROF_PIPE_TENSOR_ACTIVE", 1.0),
            },
            ..Slow::default()
        }
    }

    fn wait_for_xid(&self, patience: Duration) -> Reading<Option<XidEvent>> {
        let event = self.shared.last().xids.pop_front();
        if event.is_none() {
            thread::sleep(patience);
        }
        Reading::Value(event)
    }

    fn energy_shortest(&self) -> Nanos {
        ENERGY_SHORTEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(xid: u64, more: &str) -> String {
        let labels = |gpu: u32| format!("{{gpu=\"{gpu}\",UUID=\"GPU-{gpu}\",modelName=\"NVIDIA H100\",Hostname=\"node-7\"}}");
        let one = labels(1);
        let mut text = format!("DCGM_FI_DEV_SM_CLOCK{} 1980\n", labels(0));
        text.push_str(&format!("DCGM_FI_DEV_SM_CLOCK{one} 1410\nDCGM_FI_DEV_POWER_USAGE{one} 612.5\nDCGM_FI_DEV_XID_ERRORS{one} {xid}\n"));
        text.push_str(&format!("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{one} 15152422938\nDCGM_FI_DEV_FB_USED{one} 1024\n"));
        text.push_str(&format!("DCGM_FI_DEV_GPU_UTIL{one} 98\nDCGM_FI_DEV_GPU_TEMP{one} 9223372036854775792\n{more}"));
        text
    }

    #[test]
    fn fields_are_readings_in_their_units_and_what_is_not_there_has_a_reason() {
        let source = DcgmSource::of(vec!["GPU-1".to_owned(), "GPU-9".to_owned()], Monotonic::start());
        assert_eq!(source.fast(0), Fast::none(Missing::NoSample), "no page came yet");
        source.shared.takes(source.clock.now(), &page(0, ""));
        let fast = source.fast(0);
        assert_eq!((fast.power_w.get(), fast.sm_clock_mhz.get(), fast.busy.get()), (Some(612.5), Some(1410), Some(0.98)));
        assert_eq!(fast.memory_used_bytes.get(), Some(1 << 30));
        assert_eq!(fast.temperature_c, Reading::none(Missing::Failed), "DCGM's blank is no temperature");
        assert_eq!(fast.reasons, Reading::none(Missing::NotSupported));
        assert!((source.energy_j(0).get().unwrap() - 15_152_422.938).abs() < 1e-6, "it counts millijoules");
        assert_eq!(source.fast(1), Fast::none(Missing::Failed), "a GPU that the page does not have");
    }

    #[test]
    fn an_xid_is_one_that_was_not_there_before() {
        let source = DcgmSource::of(vec!["GPU-1".to_owned()], Monotonic::start());
        let next = || source.wait_for_xid(Duration::ZERO);
        for (xid, seen) in [(31, None), (31, None), (79, Some(79)), (79, None), (0, None), (79, Some(79))] {
            source.shared.takes(Nanos::ZERO, &page(xid, ""));
            assert_eq!(next(), Reading::Value(seen.map(|code| XidEvent { gpu: 0, code })), "{xid}");
        }
    }

    #[test]
    fn a_gpu_that_is_cut_is_one_gpu() {
        let cut = "DCGM_FI_DEV_POWER_USAGE{gpu=\"2\",UUID=\"GPU-2\",GPU_I_ID=\"3\"} 100\nDCGM_FI_DEV_POWER_USAGE{gpu=\"2\",UUID=\"GPU-2\",GPU_I_ID=\"5\"} 100\n";
        let gpus = fields(&page(0, cut)).into_iter().map(|(gpu, _)| (gpu.index, gpu.host, gpu.is_cut)).collect::<Vec<_>>();
        let gpu = |index: &str, host: &str, is_cut| (index.to_owned(), host.to_owned(), is_cut);
        assert_eq!(gpus, [gpu("0", "node-7", false), gpu("1", "node-7", false), gpu("2", "", true)]);
    }
}
