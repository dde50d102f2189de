//! Limits that control groups put on this process: the tightest of its own group and all groups above it.

use std::fs;
use std::path::{Path, PathBuf};

/// What a container or a scheduler allows; `None` where it sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// CPU time per time, in cores.
    pub cpu_cores: Option<f64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
}

/// Version 1 writes this much or more where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// Limits of this process, with `/proc` and `/sys` under another root.
#[must_use]
pub fn limits_under(root: &Path) -> Limits {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Limits::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            limits.tighten(unified(root, group));
        } else {
            limits.tighten(legacy(root, controllers, group));
        }
    }
    limits
}

impl Limits {
    fn tighten(&mut self, other: Self) {
        self.cpu_cores = [self.cpu_cores, other.cpu_cores].into_iter().flatten().reduce(f64::min);
        self.memory_bytes = [self.memory_bytes, other.memory_bytes].into_iter().flatten().min();
    }
}

/// Version 2: one tree, `cpu.max` and `memory.max` in each group.
fn unified(root: &Path, group: &str) -> Limits {
    let mut limits = Limits::default();
    for folder in up_from(&root.join("sys/fs/cgroup"), group) {
        let cpu = read(&folder, "cpu.max");
        let cpu_cores = cpu.as_deref().and_then(|text| text.split_once(' ')).and_then(|(quota, period)| share(quota, period));
        let memory_bytes = read(&folder, "memory.max").and_then(|text| text.parse().ok());
        limits.tighten(Limits { cpu_cores, memory_bytes });
    }
    limits
}

/// Version 1: a tree for each set of controllers.
fn legacy(root: &Path, controllers: &str, group: &str) -> Limits {
    let mut limits = Limits::default();
    for folder in up_from(&root.join("sys/fs/cgroup").join(controllers), group) {
        let quota = read(&folder, "cpu.cfs_quota_us").zip(read(&folder, "cpu.cfs_period_us"));
        let cpu_cores = quota.and_then(|(quota, period)| share(&quota, &period));
        let memory = read(&folder, "memory.limit_in_bytes").and_then(|text| text.parse::<u64>().ok());
        limits.tighten(Limits { cpu_cores, memory_bytes: memory.filter(|bytes| *bytes < NO_LIMIT) });
    }
    limits
}

/// The group's folder and all above it. Inside a container the group's path may not exist: then its root counts.
fn up_from(tree: &Path, group: &str) -> Vec<PathBuf> {
    let own = tree.join(group.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(tree)).map(Path::to_owned).collect()
}

/// `quota / period` where both are numbers above 0; `max` and `-1` are no limit.
fn share(quota: &str, period: &str) -> Option<f64> {
    let positive = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    Some(positive(quota)? / positive(period)?)
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned())
}
