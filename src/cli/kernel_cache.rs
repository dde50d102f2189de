//! Compiled kernels between runs: files in the user's cache folder, named by everything they depend on.
//!
//! Nothing is lost when it cannot be read or written: kernels are compiled again, which takes seconds.

use std::path::PathBuf;
use std::sync::Arc;

use etcetera::BaseStrategy;

use crate::device::cuda::program::KernelCache;
use crate::store::atomic;

/// A folder of compiled kernels.
#[derive(Debug)]
struct Folder(PathBuf);

/// The user's folder of compiled kernels; none where the user has no home.
pub(super) fn open() -> Option<Arc<dyn KernelCache>> {
    Some(Arc::new(Folder(folder()?)))
}

/// Where it is.
pub(super) fn folder() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.cache_dir().join("plimsoll").join("kernels"))
}

impl KernelCache for Folder {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(key)).ok()
    }

    fn keep(&self, key: &str, image: &[u8]) {
        let kept = atomic::create_folder(&self.0).and_then(|()| atomic::write(&self.0.join(key), image));
        if let Err(error) = kept {
            tracing::info!("compiled kernels are not kept, so that the next run compiles them again: {error}");
        }
    }
}
