//! A libnvidia-ml that answers from a script: `tests/fakes/nvml`, built once, one copy a test.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/nvml/nvml.c");

/// A library of its own in a folder of its own, with the script that it reads at every call.
pub(crate) struct FakeNvml {
    folder: TempDir,
    script: Mutex<String>,
}

impl FakeNvml {
    /// One that answers as `script` says: lines of `key value`, see the head of its source.
    pub(crate) fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::copy(built(), folder.path().join("libnvidia-ml.so.1")).expect("a copy of the library");
        let fake = Self { folder, script: Mutex::new(String::new()) };
        fake.add(script);
        fake
    }

    /// The library.
    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    /// From now on `key` has another value.
    pub(crate) fn set(&self, key: &str, value: impl std::fmt::Display) {
        self.add(&format!("{key} {value}"));
    }

    /// Further lines; the last one of a key counts.
    pub(crate) fn add(&self, lines: &str) {
        let mut script = self.script.lock().expect("no test panics while it writes");
        for line in lines.lines() {
            writeln!(script, "{}", line.trim()).expect("a string takes it");
        }
        // By name and at once: the library may be reading.
        let half = self.folder.path().join("script.half");
        fs::write(&half, script.as_bytes()).expect("the script can be written");
        fs::rename(half, self.folder.path().join("script")).expect("the script can be renamed");
    }
}

/// The built library, kept from one test run to the next by its content.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        fs::read(SOURCE).expect("the source is there").hash(&mut hasher);
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-nvml-{:016x}.so", hasher.finish()));
        if !library.exists() {
            let half = library.with_extension(std::process::id().to_string());
            let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
            let built =
                Command::new(compiler).args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"]).arg(&half).arg(SOURCE).arg("-ldl").status();
            assert!(built.is_ok_and(|status| status.success()), "tests need a C compiler for {SOURCE}");
            fs::rename(half, &library).expect("the built library can be renamed");
        }
        library
    })
}
