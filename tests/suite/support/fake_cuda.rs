//! The CUDA device of the tests, built from `tests/fakes/cuda` and the kernels as they are.
//!
//! One build for each content, kept among cargo's files and shared by all test processes. A machine without a C++
//! compiler skips what needs it, and says so; continuous integration may not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// The folder with `libcuda.so.1`, `libnvrtc.so.13` and `libcublasLt.so.13`, which run this project's kernels; the folder
/// to give a child as `LD_LIBRARY_PATH`. Nothing after having said why.
pub(crate) fn folder() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| built_from(&kernels())).clone()
}

/// Where this project's kernels are.
pub(crate) fn kernels() -> PathBuf {
    root().join("kernels")
}

/// The same device for the kernels of another folder.
pub(crate) fn built_from(kernels: &Path) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let Ok(version) = Command::new(&compiler).arg("--version").output() else {
        assert!(std::env::var_os("CI").is_none(), "the CUDA device of the tests needs a C++17 compiler, and there is no `{compiler}`");
        println!("skipped: there is no `{compiler}` to build the CUDA device of the tests with");
        return None;
    };
    let source = root().join("tests/fakes/cuda");
    let mut content = Sha256::new();
    content.update(&version.stdout);
    // The build uses it where there is one, and a kept build may meet another machine.
    content.update([u8::from(fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" fma ")))]);
    for file in files(&source).into_iter().chain(files(kernels)) {
        content.update(file.file_name().expect("a file has a name").as_encoded_bytes());
        content.update(fs::read(&file).unwrap());
    }
    let name = content.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("host-cuda-{name}"));
    fs::create_dir_all(&folder).unwrap();
    // Held by the process that builds; the others find it done.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("done");
    if !done.exists() {
        let built = Command::new("sh").arg(source.join("build.sh")).arg(&folder).arg(kernels).env("CXX", &compiler).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "the CUDA device of the tests does not build:\n{said}");
        print!("{said}");
        fs::write(done, "").unwrap();
    }
    Some(folder)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, not of those within, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}
