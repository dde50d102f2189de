//! CUDA and the driver number the same GPUs in orders of their own: what joins them.

use plimsoll::record::gpu::{GpuRecord, MigInstance};
use plimsoll::record::reading::Reading;
use plimsoll::telemetry::select::{GpuIdentity, Selected, select};
use plimsoll::telemetry::visible::{AmbiguousOrder, DeviceOrder, visible};

fn gpu(index: u32, name: &str) -> GpuRecord {
    GpuRecord {
        index,
        name: name.to_owned(),
        uuid: format!("GPU-{index}bcd0123-4567-89ab-cdef-000000000000"),
        pci_bus_id: format!("00000000:{:02X}:00.0", 0x1a + index),
        mig: Reading::Value(false),
        ..GpuRecord::default()
    }
}

/// Four of one kind; the last is cut into two instances.
fn gpus() -> Vec<GpuRecord> {
    let mut gpus = (0..4).map(|index| gpu(index, "H100")).collect::<Vec<_>>();
    let instance = |uuid: &str, gpu_instance| MigInstance {
        uuid: uuid.to_owned(),
        gpu_instance: Reading::Value(gpu_instance),
        compute_instance: Reading::Value(0),
        ..MigInstance::default()
    };
    gpus[3].mig = Reading::Value(true);
    gpus[3].instances = vec![instance("MIG-11111111-aaaa", 7), instance("MIG-22222222-bbbb", 9)];
    gpus
}

/// GPU and instance of each visible device.
fn seen(variable: &str) -> Vec<(usize, Option<usize>)> {
    visible(Some(variable), DeviceOrder::default(), &gpus()).unwrap().iter().map(|one| (one.gpu, one.instance)).collect()
}

#[test]
fn visible_devices_are_read_in_every_form_that_cuda_takes() {
    let all = visible(None, DeviceOrder::default(), &gpus()).unwrap();
    assert_eq!(all.len(), 4, "not set: all of them");
    assert_eq!(all[3], Selected { gpu: 3, instance: Some(0) }, "of a GPU that is cut up, its first instance");
    assert_eq!(seen("2,0"), [(2, None), (0, None)], "the order is CUDA's");
    assert_eq!(seen(" 1 , 2 "), [(1, None), (2, None)]);
    assert_eq!(seen("GPU-2bcd0123-4567-89ab-cdef-000000000000"), [(2, None)]);
    assert_eq!(seen("GPU-1,GPU-0"), [(1, None), (0, None)], "as much of a UUID as is unique");
    assert_eq!(seen("MIG-22222222-bbbb"), [(3, Some(1))]);
    assert_eq!(seen("MIG-2"), [(3, Some(1))]);
    assert_eq!(seen("MIG-GPU-3bcd0123-4567-89ab-cdef-000000000000/9/0"), [(3, Some(1))], "the name of older drivers");
}

#[test]
fn an_entry_that_names_nothing_ends_the_list() {
    for nothing in ["", "-1", "-1,0", "4", "NoDevFiles", "GPU-", "MIG-", "GPU-f", "MIG-GPU-0/1/0", " "] {
        assert_eq!(seen(nothing), [], "`{nothing}`");
    }
    assert_eq!(seen("1,9,2"), [(1, None)]);
    assert_eq!(seen("0,-1,1"), [(0, None)]);
    assert_eq!(seen("1,1,2"), [(1, None)], "a device that comes twice");
    let alike = [gpu(1, "H100"), GpuRecord { uuid: "GPU-1bcdffff".to_owned(), ..gpu(1, "H100") }];
    assert_eq!(visible(Some("GPU-1bcd"), DeviceOrder::default(), &alike), Ok(vec![]), "two begin so");
}

#[test]
fn an_index_among_gpus_of_several_kinds_is_refused_unless_the_order_is_the_buss() {
    let mixed = [gpu(0, "T4"), gpu(1, "H100")];
    assert_eq!(visible(Some("0"), DeviceOrder::FastestFirst, &mixed), Err(AmbiguousOrder));
    assert_eq!(visible(None, DeviceOrder::FastestFirst, &mixed), Err(AmbiguousOrder));
    assert_eq!(visible(Some("0"), DeviceOrder::PciBusId, &mixed), Ok(vec![Selected::whole(0)]));
    assert_eq!(visible(Some("GPU-1"), DeviceOrder::FastestFirst, &mixed), Ok(vec![Selected::whole(1)]), "a UUID is certain");
}

#[test]
fn cudas_devices_are_found_by_uuid_or_place_on_the_bus_whatever_their_order() {
    let gpus = gpus();
    let by_uuid = |uuid: &str| GpuIdentity { uuid: uuid.to_owned(), ..GpuIdentity::default() };
    let by_bus = |bus: &str| GpuIdentity { pci_bus_id: bus.to_owned(), ..GpuIdentity::default() };
    let places = |wanted: &[GpuIdentity]| select(wanted, &gpus).unwrap().iter().map(|one| (one.gpu, one.instance)).collect::<Vec<_>>();
    assert_eq!(places(&[by_uuid(&gpus[2].uuid), by_uuid(&gpus[0].uuid)]), [(2, None), (0, None)]);
    assert_eq!(places(&[by_bus("0000:1b:00.0"), by_bus("1A:00.0")]), [(1, None), (0, None)], "four digits, or none, for the domain");
    assert_eq!(places(&[by_uuid("MIG-11111111-aaaa")]), [(3, Some(0))]);
    let unknown = select(&[by_uuid("GPU-ffff")], &gpus).unwrap_err();
    assert!(unknown.to_string().contains("GPU-ffff") && unknown.to_string().contains(&gpus[1].uuid), "{unknown}");
}
