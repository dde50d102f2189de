//! How much memory this process may still use, and memory of large pages.

use std::path::Path;

use memmap2::MmapMut;

use crate::device::MemoryFacts;
use crate::device::error::DeviceError;

/// Reads `/proc/meminfo`, and the limit of the control group where it is lower.
pub(super) fn facts() -> Result<MemoryFacts, DeviceError> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(|source| DeviceError::System { path: path.into(), source })?;
    let host = from_meminfo(&text).ok_or_else(|| DeviceError::System {
        path: path.into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "`MemTotal` or `MemAvailable` is not in it"),
    })?;
    Ok(control_group().map_or(host, |group| MemoryFacts { total: host.total.min(group.total), free: host.free.min(group.free) }))
}

/// `MemTotal` and `MemAvailable`, which are in KiB.
fn from_meminfo(text: &str) -> Option<MemoryFacts> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(MemoryFacts { total: field("MemTotal:")?, free: field("MemAvailable:")? })
}

/// Limit and rest of the process's control group, version 2 or 1; `None` without one.
fn control_group() -> Option<MemoryFacts> {
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = |prefix: &str| groups.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or("/").trim_start_matches('/');
    // In a container the group's own path is often not visible and its files lie at the root.
    let second = Path::new("/sys/fs/cgroup");
    let first = Path::new("/sys/fs/cgroup/memory");
    let candidates = [
        (second.join(own("0::")), "memory.max", "memory.current"),
        (second.to_path_buf(), "memory.max", "memory.current"),
        (first.to_path_buf(), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ];
    candidates.iter().find_map(|(folder, limit, used)| {
        let total = number(&folder.join(limit))?;
        let used = number(&folder.join(used))?;
        Some(MemoryFacts { total, free: total.saturating_sub(used) })
    })
}

/// Refuses, with the numbers, an allocation of `needed` bytes that would not fit.
pub(super) fn check(what: &str, needed: u64) -> Result<(), DeviceError> {
    let free = facts()?.free;
    if needed <= free {
        return Ok(());
    }
    let remedy = "Free memory, choose a smaller model or fewer cache blocks, or raise the container's limit".to_owned();
    Err(DeviceError::OutOfMemory { what: what.into(), needed, free, remedy })
}

/// Zeroed memory outside the heap, in large pages where the system has them: with pages of 4 KiB, address
/// translation would slow down the streaming of weights.
pub(super) fn large_pages(what: &str, bytes: usize) -> Result<MmapMut, DeviceError> {
    check(what, bytes as u64)?;
    let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| DeviceError::OutOfMemory {
        what: what.into(),
        needed: bytes as u64,
        free: 0,
        remedy: "The system refused the address space: check `ulimit -v`".into(),
    })?;
    #[cfg(target_os = "linux")]
    // Refused where the system has no large pages: then small ones serve.
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       24000 kB\nMemFree:   1 kB\nMemAvailable:   12000 kB\n";
        assert_eq!(from_meminfo(text), Some(MemoryFacts { total: 24_576_000, free: 12_288_000 }));
        assert_eq!(from_meminfo("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn an_impossible_allocation_is_refused_with_its_number() {
        let error = large_pages("a test matrix", 1 << 60).expect_err("no machine has an exbibyte");
        assert!(error.to_string().contains("a test matrix needs 1152921504606846976 bytes"), "{error}");
    }
}
