//! Which error means which exit code: the whole table of types, one line each.

use std::error::Error;
use std::io;

use crate::campaign::instruments::GpuBusy;
use crate::campaign::interrupt::Signal;
use crate::campaign::measure::{Halt, TargetHangs};
use crate::capacity::imported::NoImported;
use crate::capacity::plan::PlanError;
use crate::capacity::scenario::ScenarioError;
use crate::capacity::throughput::NoCapacity;
use crate::capacity::transfer::NoTransfer;
use crate::cli::exit::Exit;
use crate::curve::service_law::NoLaw;
use crate::device::error::DeviceError;
use crate::engine::limits::RequestError;
use crate::engine::loading::OpenModelError;
use crate::engine::weights::LoadError;
use crate::http::client::ExchangeError;
use crate::interchange::error::{ExportError, ImportError};
use crate::model::keys::ConfigError;
use crate::model::safetensors::WeightsError;
use crate::model::tokenizer::TokenizerError;
use crate::node::telemetry::NoTelemetry;
use crate::record::slo::SloError;
use crate::serve::ServeError;
use crate::store::atomic::WriteError;
use crate::store::lock::LockError;
use crate::store::request_log::reader::ReadError;
use crate::store::request_log::writer::OpenLogError;
use crate::store::runs::StoreError;
use crate::table::read::TableError;
use crate::target::in_process::StartError;
use crate::target::openai::discover::DiscoverError;
use crate::target::openai::ready::NotReady;
use crate::telemetry::select::UnknownGpu;
use crate::telemetry::visible::AmbiguousOrder;
use crate::units::NotAQuantity;
use crate::workload::arrivals::ArrivalError;
use crate::workload::spec::WorkloadError;
use crate::workload::trace::format::UnknownFormat;
use crate::workload::trace::survey::TraceError;
use crate::workload::traffic::TrafficError;

/// What one link of an error's chain says about the exit code, by its type.
pub(super) fn exit_of(link: &(dyn Error + 'static)) -> Option<Exit> {
    by_value(link).or_else(|| by_type(link))
}

/// Types whose every value means the same.
fn by_type(link: &(dyn Error + 'static)) -> Option<Exit> {
    const BAD_INPUT: &[fn(&(dyn Error + 'static)) -> bool] = &[
        |link| link.is::<ConfigError>(),
        |link| link.is::<WeightsError>(),
        |link| link.is::<TokenizerError>(),
        |link| link.is::<OpenModelError>(),
        |link| link.is::<RequestError>(),
        |link| link.is::<WorkloadError>(),
        |link| link.is::<TrafficError>(),
        |link| link.is::<TraceError>(),
        |link| link.is::<TableError>(),
        |link| link.is::<ReadError>(),
        |link| link.is::<ImportError>(),
    ];
    const USAGE: &[fn(&(dyn Error + 'static)) -> bool] = &[
        |link| link.is::<SloError>(),
        |link| link.is::<ArrivalError>(),
        |link| link.is::<UnknownFormat>(),
        |link| link.is::<ScenarioError>(),
        |link| link.is::<NotAQuantity>(),
        |link| link.is::<PlanError>(),
        |link| link.is::<AmbiguousOrder>(),
    ];
    const UNAVAILABLE: &[fn(&(dyn Error + 'static)) -> bool] = &[
        |link| link.is::<TargetHangs>(),
        |link| link.is::<NoTelemetry>(),
        |link| link.is::<UnknownGpu>(),
        |link| link.is::<ExchangeError>(),
        |link| link.is::<NotReady>(),
        |link| link.is::<DiscoverError>(),
        |link| link.is::<ServeError>(),
    ];
    const BUSY: &[fn(&(dyn Error + 'static)) -> bool] = &[|link| link.is::<GpuBusy>()];
    let any = |types: &[fn(&(dyn Error + 'static)) -> bool]| types.iter().any(|is| is(link));
    (any(BAD_INPUT).then_some(Exit::BadInput))
        .or_else(|| any(USAGE).then_some(Exit::Usage))
        .or_else(|| any(UNAVAILABLE).then_some(Exit::Unavailable))
        .or_else(|| any(BUSY).then_some(Exit::Busy))
}

/// Types whose values mean different things.
fn by_value(link: &(dyn Error + 'static)) -> Option<Exit> {
    (link.downcast_ref().map(of_store))
        .or_else(|| link.downcast_ref().map(of_write))
        .or_else(|| link.downcast_ref().map(of_lock))
        .or_else(|| link.downcast_ref().map(of_open_log))
        .or_else(|| link.downcast_ref().map(of_device))
        .or_else(|| link.downcast_ref().map(of_load))
        .or_else(|| link.downcast_ref().map(of_start))
        .or_else(|| link.downcast_ref().map(of_no_capacity))
        .or_else(|| link.is::<NoLaw>().then_some(Exit::Inconclusive))
        .or_else(|| link.downcast_ref().map(of_no_transfer))
        .or_else(|| link.downcast_ref().map(of_no_imported))
        .or_else(|| link.downcast_ref().map(of_export))
        .or_else(|| link.downcast_ref().map(of_halt))
        .or_else(|| link.downcast_ref().and_then(of_io))
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::Write(error) => of_write(error),
        StoreError::Lock(error) => of_lock(error),
        StoreError::Log(error) => of_open_log(error),
        StoreError::NotFinite { .. } => Exit::Internal,
        StoreError::Read { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Newer { .. }
        | StoreError::NotFound { .. }
        | StoreError::NoSpike { .. } => Exit::BadInput,
        StoreError::Ambiguous { .. } => Exit::Usage,
    }
}

fn of_lock(error: &LockError) -> Exit {
    match error {
        LockError::Held { .. } | LockError::GpuHeld { .. } => Exit::Busy,
        LockError::Refused { .. } => Exit::CannotCreate,
        LockError::Write(error) => of_write(error),
    }
}

fn of_write(error: &WriteError) -> Exit {
    match error {
        // A full disk has no room for a name either.
        WriteError::Create { cause, .. } => of_io(cause).unwrap_or(Exit::CannotCreate),
        WriteError::Write { .. } | WriteError::NoSpace { .. } => Exit::CannotWrite,
    }
}

fn of_open_log(error: &OpenLogError) -> Exit {
    match error {
        OpenLogError::Write(error) => of_write(error),
        OpenLogError::Damaged { .. } => Exit::BadInput,
    }
}

fn of_device(error: &DeviceError) -> Exit {
    match error {
        DeviceError::OutOfMemory { .. }
        | DeviceError::Exhausted { .. }
        | DeviceError::Unsupported { .. }
        | DeviceError::Absent { .. }
        | DeviceError::Cuda { .. }
        | DeviceError::Threads { .. }
        | DeviceError::System { .. } => Exit::Unavailable,
        DeviceError::Source { .. } | DeviceError::NoNumber { .. } => Exit::BadInput,
        DeviceError::Step { .. } => Exit::Internal,
    }
}

fn of_load(error: &LoadError) -> Exit {
    match error {
        LoadError::Weights(_) => Exit::BadInput,
        LoadError::Device(error) => of_device(error),
        LoadError::NotEnoughMemory { .. } => Exit::Unavailable,
    }
}

fn of_start(error: &StartError) -> Exit {
    match error {
        StartError::Load(error) => of_load(error),
        StartError::Thread(_) => Exit::Unavailable,
    }
}

fn of_no_capacity(error: &NoCapacity) -> Exit {
    match error {
        NoCapacity::SloUnmet { .. } => Exit::GateFailed,
        NoCapacity::Invalid { .. } => Exit::Invalid,
        NoCapacity::Undecided { .. } => Exit::Inconclusive,
    }
}

fn of_no_imported(error: &NoImported) -> Exit {
    match error {
        NoImported::GpusNotStated { .. } => Exit::Usage,
        NoImported::Percentile { .. } | NoImported::NoRate { .. } => Exit::BadInput,
        NoImported::SloUnmet { .. } => Exit::GateFailed,
    }
}

fn of_export(error: &ExportError) -> Exit {
    match error {
        ExportError::NoRequestLog { .. } | ExportError::NoLevel { .. } => Exit::BadInput,
        ExportError::Lacks { .. } | ExportError::NoRate { .. } => Exit::BadInput,
        ExportError::Encode { .. } => Exit::Internal,
    }
}

fn of_no_transfer(error: &NoTransfer) -> Exit {
    match error {
        NoTransfer::NoCapacity(error) => of_no_capacity(error),
        NoTransfer::Kind { .. } => Exit::Usage,
        NoTransfer::Differ { .. } | NoTransfer::Unknown { .. } => Exit::Inconclusive,
        NoTransfer::Newer { .. } => Exit::BadInput,
    }
}

fn of_halt(halt: &Halt) -> Exit {
    match halt {
        Halt::Signal(signal) => Exit::from(*signal),
        Halt::Budget => Exit::Inconclusive,
    }
}

/// A disk that ran full is known wherever it happened; any other refusal means what it was for.
fn of_io(error: &io::Error) -> Option<Exit> {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    full.contains(&error.kind()).then_some(Exit::CannotWrite)
}

impl From<Signal> for Exit {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Interrupt => Self::Interrupted,
            Signal::Terminate => Self::Terminated,
            Signal::GpuFailed => Self::Unavailable,
        }
    }
}
