//! Which cores and which memory this process is near to, and who else on the machine may be counting on its GPUs.

use std::path::Path;

use crate::node::read;

/// Programs that take a GPU's hardware counters, by the names that the kernel keeps of them.
const PROFILERS: [&str; 5] = ["nv-hostengine", "dcgm-exporter", "dcgmi", "nsys", "ncu"];

/// Profilers that run on the machine, as `nv-hostengine (process 812)`: those that this process sees, which in a container is not all.
#[must_use]
pub fn profilers(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("proc")).into_iter().flatten().filter_map(Result::ok);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).collect::<Vec<_>>();
    pids.sort_unstable();
    let named = |pid: u32| Some((read(root, &format!("proc/{pid}/comm"))?.trim().to_owned(), pid));
    let found = pids.into_iter().filter_map(named).filter(|(name, _)| PROFILERS.contains(&name.as_str()));
    found.map(|(name, pid)| format!("{name} (process {pid})")).collect()
}

/// NUMA nodes of the cores that this process may run on; empty where the kernel does not say.
#[must_use]
pub fn numa_nodes(root: &Path) -> Vec<u32> {
    let status = read(root, "proc/self/status").unwrap_or_default();
    let Some(allowed) = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")) else { return Vec::new() };
    let entries = std::fs::read_dir(root.join("sys/devices/system/node")).into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse::<u32>().ok());
    let shares = |node: &u32| {
        let own = read(root, &format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
        ranges(&own).any(|(first, last)| ranges(allowed).any(|(from, to)| first <= to && from <= last))
    };
    let mut nodes = numbers.filter(shares).collect::<Vec<_>>();
    nodes.sort_unstable();
    nodes
}

/// `0-3,8` as (0, 3) and (8, 8).
fn ranges(list: &str) -> impl Iterator<Item = (u32, u32)> {
    list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{numa_nodes, profilers};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test makes a root of its own")]
    fn the_nodes_are_those_of_the_cores_that_may_be_used_and_profilers_are_known_by_name() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(numa_nodes(root.path()).is_empty() && profilers(root.path()).is_empty(), "nothing is known of an empty machine");
        write("sys/devices/system/node/node0/cpulist", "0-31,64-95\n");
        write("sys/devices/system/node/node1/cpulist", "32-63,96-127\n");
        write("sys/devices/system/node/online", "0-1\n");
        for (allowed, nodes) in [("0-127", vec![0, 1]), ("3,70", vec![0]), ("32-40", vec![1]), ("31-32", vec![0, 1]), ("200", vec![])] {
            write("proc/self/status", &format!("Name:\tplimsoll\nCpus_allowed_list:\t{allowed}\n"));
            assert_eq!(numa_nodes(root.path()), nodes, "{allowed}");
        }
        write("proc/812/comm", "nv-hostengine\n");
        write("proc/77/comm", "bash\n");
        write("proc/9/comm", "dcgm-exporter\n");
        assert_eq!(profilers(root.path()), ["dcgm-exporter (process 9)", "nv-hostengine (process 812)"]);
    }
}
