//! `plimsoll ceilings`: what the device can do at most, measured: the denominators of every share of a ceiling.

use std::num::NonZeroUsize;

use anyhow::Context;
use serde::Serialize;

use crate::cli::bench::lock_folder;
use crate::cli::device::{Device, DeviceArgs};
use crate::cli::exit::Exit;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::device::ceilings::CeilingWish;
use crate::device::cpu::{self, CpuDevice};
use crate::device::cuda;
use crate::nvidia::Libraries;
use crate::record::SCHEMA_VERSION;
use crate::record::ceilings::CeilingsRecord;
use crate::report::paint::Paint;
use crate::report::{Look, ceilings};
use crate::store::lock::NodeLock;

/// Arguments of `ceilings`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll ceilings\n  plimsoll ceilings --device cuda:0 --format json\n  \
                        plimsoll ceilings --device cpu --threads 4")]
pub struct CeilingsArgs {
    /// Seconds that each of a GPU's ceilings may take; with less, problems are smaller
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = positive)]
    seconds: f64,
    /// Threads of the CPU device [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Device")]
    threads: Option<u16>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Ceilings of a GPU that take their whole time.
const TIMED: f64 = 16.0;

#[derive(Serialize)]
struct CeilingsDocument<'a> {
    schema_version: u32,
    #[serde(flatten)]
    record: &'a CeilingsRecord,
}

/// A number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| *value > 0.0 && value.is_finite()).ok_or_else(|| "give a number above 0".to_owned())
}

/// Measures and prints.
///
/// # Errors
/// When the device is not there or fails, or another run measures on this node.
pub fn run(args: &CeilingsArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Csv])?;
    let device = args.device.choose(None, threads(args.threads))?.only()?;
    let _lock = NodeLock::take(&lock_folder())?;
    let record = measure(&device, args.device.libraries(), &CeilingWish::all(args.seconds), out.progress())?;
    match format {
        Format::Json => out.document(&CeilingsDocument { schema_version: SCHEMA_VERSION, record: &record })?,
        Format::Csv => out.print(ceilings::csv(&record).context("cannot write the ceilings as CSV")?)?,
        _ => out.print(ceilings::text(&record, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(Exit::Good)
}

/// As many as were asked for, or as cores.
pub(super) fn threads(asked: Option<u16>) -> NonZeroUsize {
    let cores = crate::node::busy_cores() as usize;
    NonZeroUsize::new(asked.map_or(cores, usize::from)).unwrap_or(NonZeroUsize::MIN)
}

/// The ceilings of a device, each said as it is measured.
///
/// # Errors
/// When the device fails.
pub(super) fn measure(device: &Device, libraries: &Libraries, wish: &CeilingWish, progress: Progress) -> anyhow::Result<CeilingsRecord> {
    let say = |text: &str| {
        if progress != Progress::Silent {
            terminal::note(text);
        }
    };
    let seconds = match device {
        Device::Cpu(_) => cpu::ceilings::SECONDS,
        Device::Cuda(..) => wish.kinds.as_ref().map_or(TIMED, |kinds| 4.0 * kinds.len() as f64) * wish.seconds_each,
    };
    say(&format!("about {seconds:.0} s of measuring{}", if device.is_cpu() { "" } else { ", after the kernels are ready" }));
    let mut told = |ceiling: &_| say(&ceilings::line(ceiling));
    let measured = match device {
        Device::Cpu(spec) => CpuDevice::open(*spec).and_then(|mut device| device.ceilings(&mut told)),
        Device::Cuda(spec, _) => cuda::ceilings::measure(libraries, spec, wish, &mut told),
    };
    measured.context("cannot measure the ceilings")
}
