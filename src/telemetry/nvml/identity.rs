//! What GPUs there are, as NVML describes them: read once.

use std::path::Path;

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use crate::record::clocks::Limits;
use crate::record::gpu::{GpuInventory, GpuRecord, GpuSoftware, MigInstance};
use crate::record::reading::Reading;
use crate::telemetry::nvml::{nvlink, reading};

/// Everything that does not change while a run goes on. A GPU that cannot be opened is left out.
pub(super) fn inventory(nvml: &'static Nvml, library: &Path) -> GpuInventory {
    let cuda = |version| format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version));
    let software = GpuSoftware {
        driver: reading(nvml.sys_driver_version()),
        nvml: reading(nvml.sys_nvml_version()),
        cuda: reading(nvml.sys_cuda_driver_version()).map(cuda),
        library: library.display().to_string(),
    };
    let indices = 0..nvml.device_count().unwrap_or(0);
    let gpus = indices.filter_map(|index| Some(gpu(index, &nvml.device_by_index(index).ok()?))).collect();
    GpuInventory { software, gpus }
}

fn gpu(index: u32, device: &Device<'static>) -> GpuRecord {
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    let both = |now: Result<u32, NvmlError>, most: Result<u32, NvmlError>| -> Reading<(u32, u32)> {
        reading(now.and_then(|now| Ok((now, most?))))
    };
    let range = reading(device.power_management_limit_constraints());
    GpuRecord {
        index,
        name: device.name().unwrap_or_else(|_| "GPU".to_owned()),
        uuid: device.uuid().unwrap_or_default(),
        pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
        vbios: reading(device.vbios_version()),
        compute_capability: reading(device.cuda_compute_capability())
            .map(|capability| format!("{}.{}", capability.major, capability.minor)),
        memory_bytes: reading(device.memory_info()).map(|memory| memory.total),
        sm_clock_max_mhz: reading(device.max_clock_info(Clock::SM)),
        memory_clock_max_mhz: reading(device.max_clock_info(Clock::Memory)),
        limits: limits(device),
        power_default_w: reading(device.power_management_limit_default()).map(watts),
        power_range_w: range.map(|range| (watts(range.min_limit), watts(range.max_limit))),
        ecc: reading(device.is_ecc_enabled()).map(|state| state.currently_enabled),
        mig: reading(device.mig_mode()).map(|mode| mode.current != 0),
        instances: instances(device),
        persistence: reading(device.is_in_persistent_mode()),
        pcie_generation: both(device.current_pcie_link_gen(), device.max_pcie_link_gen()),
        pcie_width: both(device.current_pcie_link_width(), device.max_pcie_link_width()),
        nvlinks: nvlink::states(device).map(|up| (up.iter().filter(|up| **up).count() as u32, up.len() as u32)),
        // The kernel knows it where the driver's own call is for another kind of memory.
        numa_node: Reading::default(),
    }
}

/// What an operator may have set.
pub(super) fn limits(device: &Device<'_>) -> Limits {
    Limits {
        power_w: reading(device.enforced_power_limit()).map(|milliwatts| f64::from(milliwatts) / 1000.0),
        sm_clock_mhz: reading(device.applications_clock(Clock::SM)),
        memory_clock_mhz: reading(device.applications_clock(Clock::Memory)),
    }
}

fn instances(device: &Device<'static>) -> Vec<MigInstance> {
    if !device.mig_mode().is_ok_and(|mode| mode.current != 0) {
        return Vec::new();
    }
    let devices = (0..device.mig_device_count().unwrap_or(0)).filter_map(|index| device.mig_device_by_index(index).ok());
    devices
        .map(|instance| MigInstance {
            uuid: instance.uuid().unwrap_or_default(),
            name: instance.name().unwrap_or_default(),
            gpu_instance: reading(instance_id(&instance, Part::Gpu)),
            compute_instance: reading(instance_id(&instance, Part::Compute)),
            memory_bytes: reading(instance.memory_info()).map(|memory| memory.total),
        })
        .collect()
}

/// Which number of an instance.
#[derive(Clone, Copy)]
enum Part {
    Gpu,
    Compute,
}

/// The wrapper has no call for it.
fn instance_id(instance: &Device<'static>, part: Part) -> Result<u32, NvmlError> {
    let lib = instance.nvml().lib();
    let call = match part {
        Part::Gpu => lib.nvmlDeviceGetGpuInstanceId.as_ref(),
        Part::Compute => lib.nvmlDeviceGetComputeInstanceId.as_ref(),
    };
    let call = call.map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))?;
    let mut id = 0;
    // SAFETY: the handle is one that the library, never unloaded, gave for this device, and `id` is there for the call's time.
    let code = unsafe { call(instance.handle(), &raw mut id) };
    nvml_wrapper::error::nvml_try(code)?;
    Ok(id)
}
