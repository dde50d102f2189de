//! What a run says of its GPUs beyond validity: bandwidth by two accounts, counters that somebody else holds, cores and places.

use plimsoll::campaign::{bandwidth, counters};
use plimsoll::node;
use plimsoll::record::gpu::{GpuInventory, GpuRecord, MigInstance};
use plimsoll::record::level::{Distribution, Latency, LevelRecord, Purpose};
use plimsoll::record::node::{GpuTelemetry, NodeRecord};
use plimsoll::record::reading::{Missing, Reading};
use plimsoll::record::run::DecodeNeed;
use plimsoll::record::telemetry::{Activity, GpuWindow, Telemetry, WindowSummary};

use crate::support::records;

fn watched(activity: Reading<f64>) -> GpuWindow {
    let activity = Activity { dram: activity, ..Activity::default() };
    GpuWindow { uuid: "GPU-1".to_owned(), activity, ..GpuWindow::default() }
}

/// One request alone, a token every 10 ms for nine tenths of the window, with what its GPUs counted.
fn alone(gpus: Vec<GpuWindow>) -> LevelRecord {
    let mut level = records::level(0);
    level.purpose = Purpose::Reference { position: "first".to_owned() };
    level.latency.tpot = Latency { raw: Distribution { p50: Some(10.0), ..Distribution::default() }, ..Latency::default() };
    level.throughput.output_tokens_per_s = 90.0;
    level.telemetry = Telemetry::Measured(Box::new(WindowSummary { gpus, ..WindowSummary::default() }));
    level
}

/// A token needs 6 GB of a device that reads 1 TB/s: MBU 60 % at 10 ms.
const NEED: DecodeNeed = DecodeNeed { context: 1, bytes: 6e9, flops: 1e9, read_bytes_per_s: 1e12, flop_per_s: 1e14 };

#[test]
fn mbu_is_of_one_request_alone_and_of_nothing_else() {
    let level = alone(vec![]);
    assert!((bandwidth::mbu(&level, Some(NEED)).unwrap() - 0.6).abs() < 1e-9);
    assert_eq!(bandwidth::mbu(&level, None), None, "no ceilings, no share");
    assert_eq!(bandwidth::mbu(&LevelRecord { purpose: Purpose::Sweep, ..level }, Some(NEED)), None);
}

#[test]
fn a_gpu_that_counts_far_more_or_less_than_tokens_need_is_told_with_the_direction() {
    let found = |mbu: f64, gpus: Vec<GpuWindow>| {
        let level = LevelRecord { mbu: Some(mbu), ..alone(gpus) };
        bandwidth::disagreement(&level).map(|finding| finding.evidence)
    };
    let counted = |share: f64| vec![watched(Reading::Value(share))];
    for usual in [0.4, 0.5, 0.6, 0.85] {
        assert_eq!(found(0.6, counted(usual)), None, "{usual}: other denominators, and pauses, explain it");
    }
    let more = found(0.2, counted(0.7)).unwrap();
    assert!(more.contains("MBU 20.0 %") && more.contains("70.0 % DRAM activity: more than the model needs is moved"), "{more}");
    let less = found(0.6, counted(0.1)).unwrap();
    assert!(less.contains("90.0 % of the window") && less.contains("less is read than every token needs"), "{less}");
    assert_eq!(found(1.4, counted(0.1)), None, "weights in a cache: what the report says of it suffices");
    assert_eq!(found(0.001, counted(0.04)), None, "of next to nothing nothing follows");
    assert_eq!(found(0.2, [counted(0.7), counted(0.1)].concat()), None, "of two GPUs nobody knows which one decoded");
    assert_eq!(found(0.2, vec![watched(Reading::none(Missing::NotSupported))]), None);
}

#[test]
fn counters_that_somebody_else_holds_are_a_conflict_and_a_gpu_without_them_is_none() {
    let conflict = |missing: Missing, profilers: &[&str]| {
        let mut run = records::run("x");
        run.node.profilers = profilers.iter().map(|name| (*name).to_owned()).collect();
        run.levels = vec![records::level(0), alone(vec![watched(Reading::none(missing))]), alone(vec![watched(Reading::none(missing))])];
        counters::conflict(&run).map(|finding| (finding.code, finding.evidence))
    };
    let (code, evidence) = conflict(Missing::InUse, &[]).unwrap();
    assert_eq!(code, "profiling_conflict");
    assert!(evidence.contains("GPU-1 in 2 levels (in use by another)") && evidence.contains("no profiler is visible"), "{evidence}");
    let (_, evidence) = conflict(Missing::Failed, &["nv-hostengine (process 812)"]).unwrap();
    assert!(evidence.contains("on this node runs nv-hostengine (process 812)"), "{evidence}");
    assert_eq!(conflict(Missing::Failed, &[]), None, "a failure alone accuses nobody");
    assert_eq!(conflict(Missing::NotSupported, &["nv-hostengine (process 812)"]), None);
}

/// A machine of two sockets whose process may run on `allowed`, within `quota`, with a GPU on each socket.
fn machine(allowed: &str, quota: &str) -> NodeRecord {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/self/status", &format!("Name:\tplimsoll\nCpus_allowed_list:\t{allowed}\n"));
    write("proc/self/cgroup", "0::/job\n");
    write("sys/fs/cgroup/job/cpu.max", quota);
    write("sys/devices/system/node/node0/cpulist", "0-31\n");
    write("sys/devices/system/node/node1/cpulist", "32-63\n");
    write("sys/bus/pci/devices/0000:1b:00.0/numa_node", "0\n");
    write("sys/bus/pci/devices/0000:9a:00.0/numa_node", "1\n");
    let gpu = |index: u32, bus: &str| GpuRecord {
        index,
        name: "H100".to_owned(),
        uuid: format!("GPU-{index}"),
        pci_bus_id: bus.to_owned(),
        ..GpuRecord::default()
    };
    let gpus = vec![gpu(0, "00000000:1B:00.0"), gpu(1, "00000000:9A:00.0")];
    node::describe_under(root.path(), GpuTelemetry::Available(GpuInventory { gpus, ..GpuInventory::default() }))
}

#[test]
fn a_quota_under_the_busy_threads_is_told_with_quota_and_affinity() {
    let tight = NodeRecord { cores: 64, ..machine("0-63", "150000 100000") };
    let finding = node::findings::of_cores(&tight, 2).expect("1.5 cores are fewer than 2");
    assert_eq!(finding.code, "cpu_quota");
    assert!(finding.evidence.contains("2 threads") && finding.evidence.contains("a CPU quota of 1.5 cores and 64 cores by affinity"));
    assert_eq!(node::findings::of_cores(&tight, 1), None);
    let free = NodeRecord { cores: 2, ..machine("0-1", "max 100000") };
    assert_eq!(node::findings::of_cores(&free, 2), None);
    assert!(node::findings::of_cores(&free, 3).unwrap().evidence.contains("no CPU quota and 2 cores by affinity"));
}

#[test]
fn a_gpu_of_the_other_socket_is_told_where_no_core_near_it_may_be_used() {
    let told = |allowed: &str, used: &str| {
        let found = node::findings::of_distance(&machine(allowed, "max 100000"), |uuid| used.contains(uuid));
        found.into_iter().map(|finding| (finding.code, finding.evidence)).collect::<Vec<_>>()
    };
    let remote = told("0-15", "GPU-0 GPU-1");
    assert_eq!(remote.len(), 1, "{remote:?}");
    assert_eq!(remote[0].0, "numa_remote");
    assert!(remote[0].1.contains("GPU 1 (H100) hangs on NUMA node 1") && remote[0].1.contains("cores of node 0 only"), "{remote:?}");
    assert_eq!(told("0-63", "GPU-0 GPU-1"), []);
    assert_eq!(told("0-15", "GPU-0"), [], "a GPU that is not used does not matter");
}

#[test]
fn a_gpu_that_is_cut_into_instances_is_told_with_each_of_them() {
    let instance = |name: &str| MigInstance { uuid: format!("MIG-{name}"), name: name.to_owned(), ..MigInstance::default() };
    let instances = vec![instance("1g.10gb"), instance("3g.40gb")];
    let gpu = GpuRecord { name: "H100".to_owned(), mig: Reading::Value(true), instances, ..GpuRecord::default() };
    let found = node::findings::of(&GpuTelemetry::Available(GpuInventory { gpus: vec![gpu], ..GpuInventory::default() }));
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.code, "mig");
    assert!(finding.evidence.contains("2 instances: 1g.10gb (MIG-1g.10gb), 3g.40gb"), "{}", finding.evidence);
    assert!(finding.next_step.contains("never compare it with a whole GPU, or divide it by GPUs"), "{}", finding.next_step);
}
