//! The CUDA device of the tests, opened in this process through the program's own probe.

use std::sync::OnceLock;

use plimsoll::nvidia::search::Search;
use plimsoll::nvidia::{self, Libraries};

use crate::support::fake_cuda;

/// A driver whose GPUs are this host.
pub(crate) struct HostGpu {
    libraries: &'static Libraries,
    core: libloading::Library,
}

/// What the device counted, in all threads of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) graph_launches: u64,
}

/// The device; nothing where there is no compiler, which was said.
pub(crate) fn host_gpu() -> Option<&'static HostGpu> {
    static OPENED: OnceLock<Option<HostGpu>> = OnceLock::new();
    let open = || {
        let folder = fake_cuda::folder()?;
        let libraries = nvidia::probe(&Search { explicit: Some(folder.clone()), ..Search::default() });
        if let Err(absence) = &libraries.driver {
            panic!("{absence}");
        }
        // SAFETY: it is open already, as a part of the driver.
        let core = unsafe { libloading::Library::new(folder.join("libplimsoll_host_cuda.so")) }.unwrap();
        Some(HostGpu { libraries, core })
    };
    OPENED.get_or_init(open).as_ref()
}

impl HostGpu {
    /// What the probe found.
    pub(crate) fn libraries(&self) -> &'static Libraries {
        self.libraries
    }

    /// The order of threads in all launches from now on.
    pub(crate) fn set_seed(&self, seed: u64) {
        // SAFETY: the function has this signature (`tests/fakes/cuda/control.cpp`).
        unsafe { (self.core.get::<unsafe extern "C" fn(u64)>(b"fake_cuda_set_seed").unwrap())(seed) };
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut values = [0_u64; 2];
        // SAFETY: as above; the room is stated.
        unsafe {
            (self.core.get::<unsafe extern "C" fn(*mut u64, usize)>(b"fake_cuda_counters").unwrap())(values.as_mut_ptr(), values.len());
        }
        Counters { graph_launches: values[1] }
    }
}
