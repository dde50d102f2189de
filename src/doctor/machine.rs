//! What is there: libraries, GPUs as the driver lists them, device files, folders, limits.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use crate::doctor::Examination;
use crate::nvidia::library::Library;
use crate::nvidia::{Absence, Probe};
use crate::record::diagnosis::{Check, CheckResult};

/// Lowest compute capability that the engine's kernels run on.
const LOWEST: (u32, u32) = (8, 0);

pub(super) fn libraries(of: &Examination<'_>, keep: &mut dyn FnMut(Check)) {
    const SECTION: &str = "libraries";
    let found = of.libraries;
    match &found.driver {
        Ok(driver) => {
            let path = driver.library.path.display();
            keep(Check::ok(SECTION, "CUDA driver", format!("supports CUDA {}, `{path}`", driver.cuda_version)));
        }
        // Device files without a driver that answers: something is broken, unless the GPUs were hidden on purpose.
        Err(absence) => {
            let broken = !device_files().is_empty() && of.visible_devices.is_none();
            keep(absent(SECTION, "CUDA driver", absence, if broken { CheckResult::Failed } else { CheckResult::Warning }));
        }
    }
    let others: [(&str, &Probe<Library>); 3] = [("NVRTC", &found.nvrtc), ("cuBLASLt", &found.cublaslt), ("NVML", &found.nvml)];
    for (name, library) in others {
        keep(match library {
            Ok(Library { path, version }) => {
                let version = if version.is_empty() { String::new() } else { format!("version {version}, ") };
                Check::ok(SECTION, name, format!("{version}`{}`", path.display()))
            }
            Err(absence) => absent(SECTION, name, absence, CheckResult::Warning),
        });
    }
}

fn absent(section: &str, name: &str, absence: &Absence, result: CheckResult) -> Check {
    let looked_in = if absence.looked_for.is_empty() { String::new() } else { format!("; looked in {}", absence.looked_for.join(", ")) };
    Check::new(section, name, result, format!("{}{looked_in}", absence.reason), absence.remedy.clone())
}

pub(super) fn gpus(of: &Examination<'_>, keep: &mut dyn FnMut(Check)) {
    const SECTION: &str = "gpus";
    let Ok(driver) = &of.libraries.driver else {
        keep(Check::waiting(SECTION, "GPUs of this process"));
        return;
    };
    let visible = of
        .visible_devices
        .as_ref()
        .map_or("`CUDA_VISIBLE_DEVICES` is not set".to_owned(), |value| format!("`CUDA_VISIBLE_DEVICES={value}`"));
    let count = driver.gpus.len();
    keep(if of.has_gpu() {
        Check::ok(SECTION, "GPUs of this process", format!("{count}; {visible}"))
    } else {
        let what = format!("{count}, and none is `cuda:{}`; {visible}", of.spec.ordinal);
        Check::new(SECTION, "GPUs of this process", CheckResult::Failed, what, "Choose one of those that are listed")
    });
    for gpu in &driver.gpus {
        let (major, minor) = gpu.compute_capability;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let facts = format!(
            "{}, compute capability {major}.{minor}, {} multiprocessors, {:.1} GiB, L2 {:.1} MiB, {} at {}",
            gpu.name,
            gpu.multiprocessors,
            gib(gpu.memory_bytes),
            gib(gpu.l2_bytes) * 1024.0,
            gpu.uuid,
            gpu.bus_id,
        );
        let name = format!("cuda:{}", gpu.ordinal);
        keep(if gpu.compute_capability >= LOWEST {
            Check::ok(SECTION, name, facts)
        } else {
            let what = format!("{facts}: older than compute capability {}.{} (Ampere), which the kernels need", LOWEST.0, LOWEST.1);
            Check::new(SECTION, name, CheckResult::Warning, what, "Choose another GPU for the engine")
        });
    }
}

pub(super) fn permissions(of: &Examination<'_>, keep: &mut dyn FnMut(Check)) {
    const SECTION: &str = "permissions";
    let files = device_files();
    if files.is_empty() {
        const NAME: &str = "device files `/dev/nvidia*`";
        // As in WSL, where a GPU is reached by another way.
        keep(if of.has_gpu() { Check::ok(SECTION, NAME, "none, and the driver answers without") } else { Check::waiting(SECTION, NAME) });
    }
    for file in files {
        let name = file.display().to_string();
        keep(match access(&file, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Check::ok(SECTION, name, "may be read and written"),
            Err(error) => {
                let next = "Add the user to the group that owns it, or give the container or job this device";
                Check::new(SECTION, name, CheckResult::Failed, format!("may not be read and written: {error}"), next)
            }
        });
    }
    for (purpose, folder) in &of.folders {
        let name = format!("folder for {purpose}");
        keep(match writable(folder) {
            Ok(()) => Check::ok(SECTION, name, format!("`{}` may be written", folder.display())),
            Err(why) => {
                let next = "Give this user the right to write there, or choose another folder";
                Check::new(SECTION, name, CheckResult::Warning, format!("`{}` may not be written: {why}", folder.display()), next)
            }
        });
    }
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    keep(Check::ok(SECTION, "locked memory", format!("{limit} (`ulimit -l`); plimsoll locks none itself, and the driver pins its own")));
}

/// `/dev/nvidiactl`, `/dev/nvidia-uvm` and one of each GPU; none where there is no kernel module.
fn device_files() -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir("/dev") else { return Vec::new() };
    let wanted = |name: &str| {
        let rest = name.strip_prefix("nvidia");
        rest.is_some_and(|rest| ["ctl", "-uvm"].contains(&rest) || (!rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())))
    };
    let mut files: Vec<_> =
        listing.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(wanted)).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Whether a folder, or the nearest that there is above it, may be written.
fn writable(folder: &Path) -> Result<(), String> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| error.to_string())
}
