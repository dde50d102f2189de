//! Which core is whose: one for the generator, the others for the engine, where there are two or more.
//!
//! Left to itself the system wakes the engine on the core from which it was woken, the generator's, which then comes
//! milliseconds late to its own schedule. A refusal by the system changes nothing but that.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The calling thread keeps to the generator's core until this is dropped.
#[derive(Debug)]
pub struct OnGeneratorCore {
    before: Option<CpuSet>,
}

/// The last core this thread may use, and all the others; `None` where there is but one.
fn split() -> Option<(CpuSet, CpuSet, CpuSet)> {
    let all = sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let (last, others) = cores.split_last().filter(|(_, others)| !others.is_empty())?;
    let set = |cores: &[usize]| {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        set
    };
    Some((set(&[*last]), set(others), all))
}

/// Moves the calling thread to the generator's core.
#[must_use]
pub fn take_generator_core() -> OnGeneratorCore {
    let before = split().and_then(|(own, _, all)| sched_setaffinity(None, &own).ok().map(|()| all));
    OnGeneratorCore { before }
}

/// Keeps the calling thread off the generator's core. Threads it starts later keep off too.
pub fn leave_generator_core() {
    if let Some((_, others, _)) = split() {
        let _ = sched_setaffinity(None, &others);
    }
}

/// Keeps the calling thread, the `place`th of several that help the generator, to a core of its own beside the generator's, where
/// there is one; else wherever the system puts it.
pub fn take_client_core(place: usize) {
    let Ok(all) = sched_getaffinity(None) else { return };
    let from_last = (0..CpuSet::MAX_CPU).rev().filter(|core| all.is_set(*core));
    if let Some(core) = from_last.skip(1).nth(place) {
        let mut own = CpuSet::new();
        own.set(core);
        let _ = sched_setaffinity(None, &own);
    }
}

impl Drop for OnGeneratorCore {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(None, before);
        }
    }
}
