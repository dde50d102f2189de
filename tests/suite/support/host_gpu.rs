//! The CUDA device of the tests, opened in this process through the program's own probe: kernels that run on this host, or with
//! `PLIMSOLL_TEST_GPU=1` the machine's own GPU by its own libraries (`benchmarks/gpu.sh`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use plimsoll::device::cuda::gpu::{CudaSpec, Gpu};
use plimsoll::device::cuda::program::KernelCache;
use plimsoll::nvidia::search::Search;
use plimsoll::nvidia::{self, Libraries};

use crate::support::fake_cuda;

/// A driver whose GPUs are this host, or real ones.
pub(crate) struct HostGpu {
    libraries: &'static Libraries,
    /// The host device's own controls; a real GPU has none.
    core: Option<libloading::Library>,
    /// Kernels are compiled once a process.
    cache: Arc<Compiled>,
    /// Keeps a real GPU's context: making one takes long.
    _open: Option<Arc<Gpu>>,
}

#[derive(Debug, Default)]
struct Compiled(Mutex<HashMap<String, Vec<u8>>>);

impl KernelCache for Compiled {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn keep(&self, key: &str, image: &[u8]) {
        self.0.lock().unwrap().insert(key.to_owned(), image.to_vec());
    }
}

/// The machine's own GPU.
fn real_gpu() -> HostGpu {
    let explicit = std::env::var_os("PLIMSOLL_CUDA_LIBRARIES").map(PathBuf::from);
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (cuda_home, virtual_env, conda_prefix, home) = (folder("CUDA_HOME"), folder("VIRTUAL_ENV"), folder("CONDA_PREFIX"), folder("HOME"));
    let libraries = nvidia::probe(&Search { explicit, cuda_home, virtual_env, conda_prefix, home, ..Search::default() });
    let cache = Arc::new(Compiled::default());
    let spec = CudaSpec { cache: Some(Arc::clone(&cache) as Arc<dyn KernelCache>), ..CudaSpec::new(0) };
    let open = Gpu::open(libraries, &spec).unwrap_or_else(|error| panic!("`PLIMSOLL_TEST_GPU` asks for a real GPU: {error}"));
    println!("on a real GPU: {}", open.facts().name);
    HostGpu { libraries, core: None, cache, _open: Some(open) }
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
        if std::env::var_os("PLIMSOLL_TEST_GPU").is_some_and(|value| value == "1") {
            return Some(real_gpu());
        }
        let folder = fake_cuda::folder()?;
        let libraries = nvidia::probe(&Search { explicit: Some(folder.clone()), ..Search::default() });
        if let Err(absence) = &libraries.driver {
            panic!("{absence}");
        }
        // SAFETY: it is open already, as a part of the driver.
        let core = unsafe { libloading::Library::new(folder.join("libplimsoll_host_cuda.so")) }.unwrap();
        Some(HostGpu { libraries, core: Some(core), cache: Arc::default(), _open: None })
    };
    OPENED.get_or_init(open).as_ref()
}

impl HostGpu {
    /// What the probe found.
    pub(crate) fn libraries(&self) -> &'static Libraries {
        self.libraries
    }

    /// Where compiled kernels are kept.
    pub(crate) fn cache(&self) -> Arc<dyn KernelCache> {
        Arc::clone(&self.cache) as Arc<dyn KernelCache>
    }

    /// Orders of threads to try; a real GPU has its own.
    pub(crate) fn seeds(&self) -> &'static [u64] {
        if self.core.is_some() { &[1, 2, 3, 4] } else { &[1] }
    }

    /// The order of threads in all launches from now on.
    pub(crate) fn set_seed(&self, seed: u64) {
        let Some(core) = &self.core else { return };
        // SAFETY: the function has this signature (`tests/fakes/cuda/control.cpp`).
        unsafe { (core.get::<unsafe extern "C" fn(u64)>(b"fake_cuda_set_seed").unwrap())(seed) };
    }

    /// What `open` returns, whose work this thread's device runs only when somebody waits for it: as late as it may, where
    /// it else runs at once. A real GPU is as late as it is.
    pub(crate) fn late<T>(&self, open: impl FnOnce() -> T) -> T {
        let set = |late: bool| {
            let Some(core) = &self.core else { return };
            // SAFETY: as above.
            unsafe { (core.get::<unsafe extern "C" fn(bool)>(b"fake_cuda_set_late").unwrap())(late) };
        };
        set(true);
        let opened = open();
        set(false);
        opened
    }

    /// What the host device counted; nothing of a real GPU.
    pub(crate) fn counters(&self) -> Option<Counters> {
        let core = self.core.as_ref()?;
        let mut values = [0_u64; 2];
        // SAFETY: as above; the room is stated.
        unsafe {
            (core.get::<unsafe extern "C" fn(*mut u64, usize)>(b"fake_cuda_counters").unwrap())(values.as_mut_ptr(), values.len());
        }
        Some(Counters { graph_launches: values[1] })
    }
}
