//! Which of the driver's GPUs are meant: joined by UUID or place on the bus, never by position. CUDA and NVML number the same
//! GPUs in orders of their own.

use crate::record::gpu::GpuRecord;

/// How somebody else, such as CUDA, names a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuIdentity {
    /// `GPU-...`, or `MIG-...` of an instance; may be empty.
    pub uuid: String,
    /// Such as `0000:1B:00.0`; may be empty.
    pub pci_bus_id: String,
}

/// A GPU of the inventory, or an instance of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Place in the inventory.
    pub gpu: usize,
    /// Place among the GPU's MIG instances, where one is meant.
    pub instance: Option<usize>,
}

impl Selected {
    /// A whole GPU.
    #[must_use]
    pub fn whole(gpu: usize) -> Self {
        Self { gpu, instance: None }
    }

    /// Its own UUID: of the instance where one is meant.
    #[must_use]
    pub fn uuid(self, gpus: &[GpuRecord]) -> &str {
        let gpu = &gpus[self.gpu];
        self.instance.map_or(&gpu.uuid, |instance| &gpu.instances[instance].uuid)
    }
}

/// A GPU that the driver does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver knows no GPU `{wanted}`; it has {known}. Name one of these, or its UUID from `plimsoll node`")]
pub struct UnknownGpu {
    /// As it was named.
    pub wanted: String,
    /// The driver's.
    pub known: String,
}

impl UnknownGpu {
    /// That `wanted` is none of `gpus`.
    #[must_use]
    pub fn new(wanted: &str, gpus: &[GpuRecord]) -> Self {
        let known = gpus.iter().map(|gpu| format!("{} ({})", gpu.uuid, gpu.name)).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        Self { wanted: wanted.to_owned(), known }
    }
}

/// The GPUs that are meant, in the order in which they are named.
///
/// # Errors
/// When the driver does not know one.
pub fn select(wanted: &[GpuIdentity], gpus: &[GpuRecord]) -> Result<Vec<Selected>, UnknownGpu> {
    let find = |identity: &GpuIdentity| {
        by_uuid(&identity.uuid, gpus).or_else(|| by_bus(&identity.pci_bus_id, gpus)).ok_or_else(|| {
            let wanted = if identity.uuid.is_empty() { &identity.pci_bus_id } else { &identity.uuid };
            UnknownGpu::new(wanted, gpus)
        })
    };
    wanted.iter().map(find).collect()
}

/// The GPU or instance of exactly this UUID.
fn by_uuid(uuid: &str, gpus: &[GpuRecord]) -> Option<Selected> {
    gpus.iter().enumerate().find_map(|(index, gpu)| {
        // CUDA does not say whether the UUID it gives is a GPU's or an instance's; its digits are those of one of them.
        let is = |known: &str| !uuid.is_empty() && digits(known).eq_ignore_ascii_case(digits(uuid));
        let instance = || gpu.instances.iter().position(|instance| is(&instance.uuid));
        let whole = is(&gpu.uuid).then_some(Selected::whole(index));
        whole.or_else(|| Some(Selected { gpu: index, instance: Some(instance()?) }))
    })
}

/// A UUID without the word before it.
fn digits(uuid: &str) -> &str {
    uuid.strip_prefix("GPU-").or_else(|| uuid.strip_prefix("MIG-")).unwrap_or(uuid)
}

fn by_bus(bus_id: &str, gpus: &[GpuRecord]) -> Option<Selected> {
    let wanted = place_on_bus(bus_id)?;
    gpus.iter().position(|gpu| place_on_bus(&gpu.pci_bus_id) == Some(wanted)).map(Selected::whole)
}

/// Domain, bus, device and function: CUDA writes the domain in four digits, NVML in eight, others leave it out.
fn place_on_bus(bus_id: &str) -> Option<[u32; 4]> {
    let (rest, function) = bus_id.trim().rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
    Some([hex(domain)?, hex(bus)?, hex(device)?, hex(function)?])
}
