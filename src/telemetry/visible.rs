//! What `CUDA_VISIBLE_DEVICES` leaves visible, and in which order: CUDA's device 0 is the first of them.
//!
//! A pure function of the variable's text. CUDA reads the list up to the first entry that names nothing; what comes after it is not
//! visible, which is how `-1` hides everything. CUDA's own order puts the fastest GPU first: it can be told here only where
//! all are of one kind, or where `CUDA_DEVICE_ORDER` says `PCI_BUS_ID`.

use crate::record::gpu::GpuRecord;
use crate::telemetry::select::Selected;

/// The order in which CUDA counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceOrder {
    /// CUDA's default.
    #[default]
    FastestFirst,
    /// By place on the bus, as the driver counts.
    PciBusId,
}

/// An index means nothing certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has GPUs of several kinds, which CUDA counts fastest first: an index names none of them for certain. Name GPUs by UUID, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
)]
pub struct AmbiguousOrder;

/// The visible GPUs and instances in CUDA's order, by the text of `CUDA_VISIBLE_DEVICES` (`None`: not set).
///
/// # Errors
/// When an index, or the order of all, cannot be told.
pub fn visible(variable: Option<&str>, order: DeviceOrder, gpus: &[GpuRecord]) -> Result<Vec<Selected>, AmbiguousOrder> {
    let of_one_kind = gpus.windows(2).all(|pair| pair[0].name == pair[1].name);
    let order_known = of_one_kind || order == DeviceOrder::PciBusId;
    let Some(variable) = variable else {
        return if order_known { Ok((0..gpus.len()).map(|gpu| usable(gpu, gpus)).collect()) } else { Err(AmbiguousOrder) };
    };
    let mut seen = Vec::new();
    for entry in variable.split(',').map(str::trim) {
        let found = match entry.parse::<usize>() {
            Ok(_) if !order_known => return Err(AmbiguousOrder),
            Ok(index) => (index < gpus.len()).then(|| usable(index, gpus)),
            Err(_) => by_prefix(entry, gpus),
        };
        // One that comes twice ends the list as one that names nothing does.
        match found.filter(|found| !seen.contains(found)) {
            Some(found) => seen.push(found),
            None => break,
        }
    }
    Ok(seen)
}

/// CUDA sees the first instance of a GPU that is cut into some.
fn usable(gpu: usize, gpus: &[GpuRecord]) -> Selected {
    let cut = gpus[gpu].mig.get() == Some(true) && !gpus[gpu].instances.is_empty();
    Selected { gpu, instance: cut.then_some(0) }
}

/// The only GPU, or instance, whose UUID begins so.
fn by_prefix(prefix: &str, gpus: &[GpuRecord]) -> Option<Selected> {
    let begins = |uuid: &str| uuid.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    if let Some(old) = prefix.strip_prefix("MIG-GPU-") {
        return by_old_name(old, gpus);
    }
    let is_name = ["GPU-", "MIG-"].iter().any(|kind| prefix.len() > kind.len() && prefix[..].starts_with(kind));
    if !is_name {
        return None;
    }
    let instances = |gpu: usize| {
        let fitting = gpus[gpu].instances.iter().enumerate().filter(|(_, instance)| begins(&instance.uuid));
        fitting.map(move |(instance, _)| Selected { gpu, instance: Some(instance) }).collect::<Vec<_>>()
    };
    let whole = |gpu: usize| begins(&gpus[gpu].uuid).then(|| usable(gpu, gpus));
    let mut fitting = (0..gpus.len()).flat_map(|gpu| whole(gpu).into_iter().chain(instances(gpu)));
    let first = fitting.next();
    first.filter(|_| fitting.next().is_none())
}

/// `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`, as drivers before R470 named instances.
fn by_old_name(name: &str, gpus: &[GpuRecord]) -> Option<Selected> {
    let mut parts = name.split('/');
    let (uuid, gpu_instance, compute_instance) = (parts.next()?, parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    let gpu = gpus.iter().position(|gpu| gpu.uuid.strip_prefix("GPU-").is_some_and(|own| own.eq_ignore_ascii_case(uuid)))?;
    let instance = gpus[gpu].instances.iter().position(|instance| {
        instance.gpu_instance.get() == Some(gpu_instance) && instance.compute_instance.get() == Some(compute_instance)
    })?;
    Some(Selected { gpu, instance: Some(instance) })
}
