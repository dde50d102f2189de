//! How much memory this process may still use, and memory of large pages.

use std::path::Path;

use memmap2::MmapMut;

use crate::device::MemoryFacts;
use crate::device::control_group;
use crate::device::error::DeviceError;

/// Reads `/proc/meminfo`, and the limits of control groups and of the address space where they are lower.
pub(super) fn facts() -> Result<MemoryFacts, DeviceError> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(|source| DeviceError::System { path: path.into(), source })?;
    let host = from_meminfo(&text).ok_or_else(|| DeviceError::System {
        path: path.into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "`MemTotal` or `MemAvailable` is not in it"),
    })?;
    let limits = control_group::limits_under(Path::new("/"));
    let free = [Some(host.free), limits.memory_free, address_space()].into_iter().flatten().min();
    Ok(MemoryFacts { total: limits.memory_bytes.map_or(host.total, |limit| host.total.min(limit)), free: free.unwrap_or(host.free) })
}

/// What `ulimit -v` leaves of the address space; `None` without such a limit.
fn address_space() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(pages.saturating_mul(rustix::param::page_size() as u64)))
}

/// `MemTotal` and `MemAvailable`, which are in KiB.
fn from_meminfo(text: &str) -> Option<MemoryFacts> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(MemoryFacts { total: field("MemTotal:")?, free: field("MemAvailable:")? })
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

/// A zeroed vector of `len` floats, refused with its number where it does not fit.
pub(super) fn floats(what: &str, len: usize) -> Result<Vec<f32>, DeviceError> {
    check(what, (len as u64).saturating_mul(4))?;
    let mut values = Vec::new();
    grow(what, &mut values, len)?;
    Ok(values)
}

/// Lengthens `values` to `len` zeros or more; refused where the system has not the address space.
pub(super) fn grow<T: Clone + Default>(what: &str, values: &mut Vec<T>, len: usize) -> Result<(), DeviceError> {
    let further = len.saturating_sub(values.len());
    values.try_reserve_exact(further).map_err(|_| no_address_space(what, (len as u64).saturating_mul(size_of::<T>() as u64)))?;
    values.resize(values.len() + further, T::default());
    Ok(())
}

/// What the system refuses though there is memory for it.
fn no_address_space(what: &str, needed: u64) -> DeviceError {
    let remedy = "The system refused the address space: check `ulimit -v`".into();
    DeviceError::OutOfMemory { what: what.into(), needed, free: 0, remedy }
}

/// Zeroed memory outside the heap, in large pages where the system has them: with pages of 4 KiB, address
/// translation would slow down the streaming of weights.
pub(super) fn large_pages(what: &str, bytes: usize) -> Result<MmapMut, DeviceError> {
    check(what, bytes as u64)?;
    let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| no_address_space(what, bytes as u64))?;
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

    #[test]
    fn address_space_that_is_refused_is_an_error_and_no_abort() {
        let error = grow::<u64>("a test vector", &mut Vec::new(), 1 << 58).expect_err("no machine has it");
        assert!(error.to_string().contains("a test vector needs 2305843009213693952 bytes"), "{error}");
    }
}
