//! Readings of the watched GPUs, call by call.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, PcieUtilCounter, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use crate::record::gpu::GpuRecord;
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::{Activity, FaultCounters, GpuProcess, Link};
use crate::telemetry::nvml::nvlink::{self, NvLinks};
use crate::telemetry::nvml::{identity, reading, why};
use crate::telemetry::sample::{Fast, Slow, XidEvent};
use crate::telemetry::select::Selected;
use crate::telemetry::{Source, procfs};

/// Fields that have no call of their own, by NVML's numbers: none is among those that driver 580.82 numbered anew.
const MEMORY_TEMPERATURE: FieldId = FieldId(82);
const REMAPPED_CORRECTED: FieldId = FieldId(142);
const REMAPPED_UNCORRECTED: FieldId = FieldId(143);
const POWER_AVERAGE: FieldId = FieldId(185);
const POWER_INSTANT: FieldId = FieldId(186);
/// What the driver says where it does not know which fault it was.
const XID_UNKNOWN: u64 = 999;
/// NVML counts PCIe traffic in these.
const KIB: f64 = 1024.0;

/// The watched GPUs.
pub struct NvmlSource {
    nvml: &'static Nvml,
    gpus: Vec<Watched>,
    /// The faults that are waited for; made by the thread that waits.
    events: Mutex<Option<EventSet<'static>>>,
}

/// One of them.
struct Watched {
    /// `None`: it could not be opened again.
    device: Option<Device<'static>>,
    /// The MIG instance that is meant, and the GPU instance that it is part of.
    instance: Option<(Device<'static>, Option<u32>)>,
    /// The last look at the hardware's counters: the next one is compared with it.
    counted: Mutex<Option<GpmSample<'static>>>,
}

impl fmt::Debug for NvmlSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NvmlSource").field("gpus", &self.gpus.len()).finish_non_exhaustive()
    }
}

impl NvmlSource {
    /// A source of `selected` ones of `gpus`.
    pub(super) fn of(nvml: &'static Nvml, gpus: &[GpuRecord], selected: &[Selected]) -> Self {
        let watched = |selected: &Selected| {
            let gpu = &gpus[selected.gpu];
            let device = nvml.device_by_index(gpu.index).ok().filter(|device| device.uuid().is_ok_and(|uuid| uuid == gpu.uuid));
            let instance = selected.instance.and_then(|place| {
                let known = &gpu.instances[place];
                let cut =
                    (0..device.as_ref()?.mig_device_count().ok()?).filter_map(|index| device.as_ref()?.mig_device_by_index(index).ok());
                let found = cut.into_iter().find(|cut| cut.uuid().is_ok_and(|uuid| uuid == known.uuid))?;
                Some((found, known.gpu_instance.get()))
            });
            Watched { device, instance, counted: Mutex::new(None) }
        };
        Self { nvml, gpus: selected.iter().map(watched).collect(), events: Mutex::new(None) }
    }

    /// Processes that compute on the GPU of this place.
    pub(super) fn processes(&self, gpu: usize) -> Reading<Vec<GpuProcess>> {
        self.gpus[gpu].processes(self.nvml)
    }

    /// A set of the faults of every watched GPU that reports some.
    fn register(&self) -> Result<EventSet<'static>, Missing> {
        let reports =
            |device: &&Device<'static>| device.supported_event_types().is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR));
        let devices = self.gpus.iter().filter_map(|watched| watched.device.as_ref()).filter(reports).collect::<Vec<_>>();
        if devices.is_empty() {
            return Err(Missing::NotSupported);
        }
        let mut set = self.nvml.create_event_set().map_err(|error| why(&error))?;
        for device in devices {
            set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| why(&error.error))?;
        }
        Ok(set)
    }

    /// The place of a device of an event. By its handle: a GPU that fell off the bus is not to be called again.
    fn place_of(&self, device: &Device<'_>) -> Option<usize> {
        // SAFETY: the handles are compared, and neither kept nor used.
        let same = |own: &Device<'_>| unsafe { own.handle() == device.handle() };
        self.gpus.iter().position(|watched| watched.device.as_ref().is_some_and(same))
    }
}

impl Watched {
    fn device(&self) -> Result<&Device<'static>, NvmlError> {
        self.device.as_ref().ok_or(NvmlError::GpuLost)
    }

    fn read<T>(&self, call: impl FnOnce(&Device<'static>) -> Result<T, NvmlError>) -> Reading<T> {
        reading(self.device().and_then(call))
    }

    /// As [`Self::read`], of something that is known of a whole GPU only.
    fn of_whole<T>(&self, call: impl FnOnce(&Device<'static>) -> Result<T, NvmlError>) -> Reading<T> {
        if self.instance.is_some() { Reading::none(Missing::WholeGpuOnly) } else { self.read(call) }
    }

    fn fields<const N: usize>(&self, fields: [FieldId; N]) -> [Reading<u64>; N] {
        let values = match self.device().and_then(|device| device.field_values_for(&fields)) {
            Ok(values) => values,
            Err(error) => return [Reading::none(why(&error)); N],
        };
        std::array::from_fn(|index| {
            let value = values[index].as_ref().map_err(why).and_then(|sample| sample.value.as_ref().map_err(why));
            value.and_then(|value| whole_number(value).ok_or(Missing::Failed)).into()
        })
    }

    fn activity(&self, nvml: &'static Nvml) -> Result<Activity, Missing> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // A look that fails leaves none behind: what was counted across it is nobody's.
        let before = counted.take();
        let device = self.device().map_err(|error| why(&error))?;
        if self.instance.is_some() {
            return Err(Missing::WholeGpuOnly);
        }
        if !device.gpm_support().map_err(|error| why(&error))? {
            return Err(Missing::NotSupported);
        }
        let now = device.gpm_sample().map_err(|error| why(&error))?;
        let Some(before) = before else {
            *counted = Some(now);
            return Err(Missing::NoSample);
        };
        let wanted = [GpmMetricId::DramBwUtil, GpmMetricId::SmUtil, GpmMetricId::AnyTensorUtil];
        let metrics = gpm_metrics_get(nvml, &before, &now, &wanted).map_err(|error| why(&error))?;
        *counted = Some(now);
        let share = |index: usize| -> Reading<f64> {
            let metric = metrics.get(index).ok_or(Missing::Failed).and_then(|metric| metric.as_ref().map_err(why));
            let percent =
                metric.map(|metric| metric.value).and_then(|value| if value.is_finite() { Ok(value) } else { Err(Missing::Failed) });
            percent.map(|percent| percent / 100.0).into()
        };
        Ok(Activity { dram: share(0), sm: share(1), tensor: share(2) })
    }

    fn processes(&self, nvml: &'static Nvml) -> Reading<Vec<GpuProcess>> {
        let gpu_instance = self.instance.as_ref().and_then(|(_, number)| *number);
        let process = |process: nvml_wrapper::struct_wrappers::device::ProcessInfo| GpuProcess {
            pid: process.pid,
            name: name_of(nvml, process.pid).ok_or(Missing::NoPermission).into(),
            memory_bytes: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Reading::Value(bytes),
                UsedGpuMemory::Unavailable => Reading::none(Missing::NotSupported),
            },
            gpu_instance: process.gpu_instance_id,
        };
        let processes = self.read(Device::running_compute_processes);
        processes.map(|all| all.into_iter().map(process).filter(|one| gpu_instance.is_none() || one.gpu_instance == gpu_instance).collect())
    }
}

impl Source for NvmlSource {
    fn energy_j(&self, gpu: usize) -> Reading<f64> {
        self.gpus[gpu].of_whole(Device::total_energy_consumption).map(|millijoules| millijoules as f64 / 1000.0)
    }

    fn fast(&self, gpu: usize) -> Fast {
        let watched = &self.gpus[gpu];
        let [average, instant, memory_temperature] = watched.fields([POWER_AVERAGE, POWER_INSTANT, MEMORY_TEMPERATURE]);
        let watts = |reading: Reading<u64>| -> Reading<f64> {
            if watched.instance.is_some() {
                return Reading::none(Missing::WholeGpuOnly);
            }
            reading.map(|milliwatts| milliwatts as f64 / 1000.0)
        };
        let average = match watts(average) {
            // Older drivers have the call and not the field.
            Reading::Missing { missing: Missing::NotSupported } => {
                watched.of_whole(Device::power_usage).map(|milliwatts| f64::from(milliwatts) / 1000.0)
            }
            known => known,
        };
        Fast {
            power_w: average,
            power_instant_w: watts(instant),
            sm_clock_mhz: watched.read(|device| device.clock_info(Clock::SM)),
            memory_clock_mhz: watched.read(|device| device.clock_info(Clock::Memory)),
            reasons: watched.read(|device| device.current_throttle_reasons()).map(|reasons| reasons.bits()),
            temperature_c: watched.read(|device| device.temperature(TemperatureSensor::Gpu)),
            memory_temperature_c: memory_temperature.map(|degrees| degrees as u32),
            busy: watched.of_whole(Device::utilization_rates).map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used_bytes: match &watched.instance {
                Some((instance, _)) => reading(instance.memory_info()).map(|memory| memory.used),
                None => watched.read(Device::memory_info).map(|memory| memory.used),
            },
        }
    }

    fn slow(&self, gpu: usize) -> Slow {
        let watched = &self.gpus[gpu];
        let ecc = |kind: MemoryError| watched.read(|device| device.total_ecc_errors(kind, EccCounter::Volatile));
        let [remapped_corrected, remapped_uncorrected] = watched.fields([REMAPPED_CORRECTED, REMAPPED_UNCORRECTED]);
        let traffic = |counter| watched.read(|device| device.pcie_throughput(counter)).map(|kib_per_s| f64::from(kib_per_s) * KIB);
        let nvlinks = watched.device().map_or_else(|error| NvLinks::none(why(&error)), nvlink::look);
        let none = |missing| Activity { dram: Reading::none(missing), sm: Reading::none(missing), tensor: Reading::none(missing) };
        Slow {
            limits: watched.device().map(identity::limits).unwrap_or_default(),
            faults: FaultCounters {
                ecc_corrected: ecc(MemoryError::Corrected),
                ecc_uncorrected: ecc(MemoryError::Uncorrected),
                remapped_corrected,
                remapped_uncorrected,
                pcie_replays: watched.read(Device::pcie_replay_counter).map(u64::from),
                nvlink_replays: nvlinks.replays,
                nvlink_recoveries: nvlinks.recoveries,
                nvlink_crc_errors: nvlinks.crc_errors,
            },
            nvlinks_up: nvlinks.up,
            link: Link {
                generation: watched.read(Device::current_pcie_link_gen),
                generation_max: watched.read(Device::max_pcie_link_gen),
                width: watched.read(Device::current_pcie_link_width),
                width_max: watched.read(Device::max_pcie_link_width),
                sent_bytes_per_s: traffic(PcieUtilCounter::Send),
                received_bytes_per_s: traffic(PcieUtilCounter::Receive),
            },
            processes: watched.processes(self.nvml),
            activity: watched.activity(self.nvml).unwrap_or_else(none),
        }
    }

    fn wait_for_xid(&self, patience: Duration) -> Reading<Option<XidEvent>> {
        // Only the thread that waits for faults takes it.
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match events.take().map_or_else(|| self.register(), Ok) {
            Ok(set) => set,
            Err(missing) => return Reading::none(missing),
        };
        let event = set.wait(u32::try_from(patience.as_millis()).unwrap_or(u32::MAX));
        let event = match event {
            Ok(event) => Ok(self.place_of(&event.device).map(|gpu| XidEvent { gpu, code: code_of(event.event_data) })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(error) => Err(why(&error)),
        };
        *events = Some(set);
        event.into()
    }
}

fn code_of(event: Option<XidError>) -> u64 {
    match event {
        Some(XidError::Value(code)) => code,
        Some(XidError::Unknown) | None => XID_UNKNOWN,
    }
}

fn name_of(nvml: &Nvml, pid: u32) -> Option<String> {
    nvml.sys_process_name(pid, 256).ok().filter(|name| !name.is_empty()).or_else(|| procfs::process_name(pid))
}

fn whole_number(value: &SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(value) => Some(u64::from(*value)),
        SampleValue::U64(value) => Some(*value),
        SampleValue::I64(value) => u64::try_from(*value).ok(),
        SampleValue::F64(value) => (value.is_finite() && *value >= 0.0).then_some(*value as u64),
    }
}
