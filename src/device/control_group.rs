//! Limits that control groups put on this process: the tightest of its own group and all groups above it.
//!
//! Read for the memory that a device may take, and for the description of the node.

use std::fs;
use std::path::{Path, PathBuf};

/// What a container or a scheduler allows; `None` where it sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// CPU time per time, in cores.
    pub cpu_cores: Option<f64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// What is left of it, bytes: in the group that leaves least. Pages of files, which the kernel gives up when memory is
    /// wanted, count as left.
    pub memory_free: Option<u64>,
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
        self.memory_free = [self.memory_free, other.memory_free].into_iter().flatten().min();
    }
}

/// Version 2: one tree, `cpu.max` and `memory.max` in each group.
fn unified(root: &Path, group: &str) -> Limits {
    let mut limits = Limits::default();
    for folder in up_from(&root.join("sys/fs/cgroup"), group) {
        let cpu = read(&folder, "cpu.max");
        let cpu_cores = cpu.as_deref().and_then(|text| text.split_once(' ')).and_then(|(quota, period)| share(quota, period));
        let memory_bytes = read(&folder, "memory.max").and_then(|text| text.parse().ok());
        let used = memory_bytes.and_then(|_| in_use(&folder, "memory.current", ["inactive_file", "active_file"]));
        limits.tighten(Limits { cpu_cores, memory_bytes, memory_free: left(memory_bytes, used) });
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
        let memory_bytes = memory.filter(|bytes| *bytes < NO_LIMIT);
        let used = memory_bytes.and_then(|_| in_use(&folder, "memory.usage_in_bytes", ["total_inactive_file", "total_active_file"]));
        limits.tighten(Limits { cpu_cores, memory_bytes, memory_free: left(memory_bytes, used) });
    }
    limits
}

/// Bytes of `folder`'s group that cannot be given up for others: those counted in `file` less the pages of files.
fn in_use(folder: &Path, file: &str, pages: [&str; 2]) -> Option<u64> {
    let used: u64 = read(folder, file)?.parse().ok()?;
    let stat = read(folder, "memory.stat").unwrap_or_default();
    let field = |name: &&str| stat.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
    Some(pages.iter().filter_map(field).fold(used, u64::saturating_sub))
}

/// What `used` leaves of `limit`; nothing is known without either.
fn left(limit: Option<u64>, used: Option<u64>) -> Option<u64> {
    Some(limit?.saturating_sub(used?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test makes a root of its own")]
    fn under(files: &[(&str, &str)]) -> Limits {
        let root = tempfile::tempdir().expect("there is a folder for temporary files");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        limits_under(root.path())
    }

    #[test]
    fn the_tightest_of_all_groups_above_counts_and_pages_of_files_are_free() {
        let limits = under(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1000000\n"),
            ("sys/fs/cgroup/outer/memory.current", "900000\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 100000\ninactive_file 500000\nactive_file 200000\nactive_file_other 7\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "5\n"),
            ("sys/fs/cgroup/outer/inner/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(limits, Limits { cpu_cores: Some(1.5), memory_bytes: Some(1_000_000), memory_free: Some(800_000) });
        // The group that leaves least need not be the one of the lowest limit.
        let limits = under(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "2000\n"),
            ("sys/fs/cgroup/a/memory.current", "1900\n"),
            ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100\n"),
        ]);
        assert_eq!((limits.memory_bytes, limits.memory_free), (Some(1000), Some(100)));
    }

    #[test]
    fn the_older_version_is_read_in_the_groups_own_folder_and_above() {
        let limits = under(&[
            ("proc/self/cgroup", "5:memory:/job\n3:cpu,cpuacct:/job\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "77\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 96\n"),
            ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(limits, Limits { cpu_cores: None, memory_bytes: Some(4096), memory_free: Some(1192) });
    }

    #[test]
    fn without_groups_there_are_no_limits() {
        assert_eq!(under(&[("proc/self/cgroup", "0::/\n")]), Limits::default());
        assert_eq!(under(&[]), Limits::default());
    }
}
