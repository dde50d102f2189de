//! Every kernel compiles for every architecture it may run on, without spilling a register, and fits the hardware.
//!
//! NVRTC needs no GPU and no driver, so this runs anywhere `.ci/nvrtc` has been. It runs nothing on a GPU and says nothing
//! about speed. `PLIMSOLL_NVRTC` names other folders of compilers, `PLIMSOLL_GATE_TABLE` a file for the table.
//!
//! A process of its own: beside the compiler of the CUDA device of the tests, which answers to the same names, the real
//! ones would call it in place of themselves.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted may panic")]
#![expect(clippy::print_stdout, reason = "tests say what they skip and what they measured")]
#![expect(clippy::disallowed_methods, reason = "tests read settings and write tables on purpose")]

mod compiler;
mod embedded;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use compiler::Compiler;
use usage::Usage;

/// Architectures by compute capability: A100, A10, L40S, H100 and H200, B200, RTX PRO 6000 Blackwell.
const ARCHITECTURES: [&str; 6] = ["80", "86", "89", "90a", "100a", "120"];
/// The largest number of registers that the threads of one block may have together, on each of these.
const REGISTERS: u32 = 65_536;
/// Static shared memory that every launch may have without asking.
const SHARED_BYTES: u32 = 49_152;
/// Kernels that may spill, each with the reason. None has one.
const MAY_SPILL: [&str; 0] = [];

/// Sources by file name.
type Sources = BTreeMap<String, String>;

/// One compilation of one program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Build {
    program: String,
    element: &'static str,
    architecture: &'static str,
    nvrtc: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Sources of kernels with this ending.
fn sources(ending: &str) -> Sources {
    std::fs::read_dir(root().join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The compilers there are, or where they were looked for.
fn compilers() -> Result<Vec<Compiler>, String> {
    let folders: Vec<PathBuf> = match std::env::var_os("PLIMSOLL_NVRTC") {
        Some(folders) => std::env::split_paths(&folders).collect(),
        None => ["12.1", "13.0"].iter().map(|version| root().join("target/nvrtc").join(version)).collect(),
    };
    let compilers: Vec<Compiler> = folders.iter().filter_map(|folder| Compiler::in_folder(folder)).collect();
    if compilers.is_empty() { Err(format!("no NVRTC in {}", std::env::join_paths(folders).unwrap().display())) } else { Ok(compilers) }
}

/// Compiles all of it, on as many threads as there are processors.
fn compile_all(compilers: &[Compiler], programs: &Sources, headers: &Sources) -> Vec<(Build, Result<Vec<Usage>, String>)> {
    let mut jobs = Vec::new();
    for compiler in compilers {
        for program in programs.keys() {
            for element in ["bf16", "f32"] {
                jobs.extend(ARCHITECTURES.into_iter().filter(|it| compiler.knows(it)).map(|it| (compiler, program, element, it)));
            }
        }
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((compiler, program, element, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let options = [
                format!("--gpu-architecture=sm_{architecture}"),
                "--std=c++17".into(),
                "--fmad=true".into(),
                format!("-DELEMENT_{}", element.to_uppercase()),
                "--ptxas-options=-v".into(),
            ];
            let found = compiler.compile(program, &programs[*program], headers, &options);
            let found = found.and_then(|compiled| usage::of(&compiled.log, &compiled.ptx));
            let build = Build { program: (*program).clone(), element, architecture, nvrtc: compiler.version().into() };
            done.lock().unwrap().push((build, found));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by(|one, other| one.0.cmp(&other.0));
    done
}

/// What is wrong with a kernel, if anything.
fn fault(usage: &Usage) -> Option<String> {
    // The hardware gives registers to a thread in eights.
    let registers = usage.registers.next_multiple_of(8) * usage.threads * usage.blocks;
    if usage.spilled() && !MAY_SPILL.contains(&usage.kernel.as_str()) {
        Some(format!("spills: {} bytes of stack, {} stored, {} loaded", usage.stack, usage.spill_stores, usage.spill_loads))
    } else if registers > REGISTERS {
        Some(format!("{} registers for {} blocks of {} threads exceed {REGISTERS}", usage.registers, usage.blocks, usage.threads))
    } else if usage.shared > SHARED_BYTES {
        Some(format!("{} bytes of static shared memory exceed {SHARED_BYTES}", usage.shared))
    } else {
        None
    }
}

fn write_table(path: &Path, done: &[(Build, Result<Vec<Usage>, String>)]) {
    let mut table = csv::Writer::from_path(path).unwrap();
    table
        .write_record([
            "program",
            "kernel",
            "element",
            "arch",
            "nvrtc",
            "threads",
            "registers",
            "shared_bytes",
            "stack_bytes",
            "spill_stores",
            "spill_loads",
        ])
        .unwrap();
    for (build, usages) in done {
        for usage in usages.iter().flatten() {
            let numbers = [usage.threads, usage.registers, usage.shared, usage.stack, usage.spill_stores, usage.spill_loads];
            let names = [build.program.trim_end_matches(".cu"), &usage.kernel, build.element, build.architecture, &build.nvrtc];
            table.write_record(names.into_iter().map(String::from).chain(numbers.map(|number| number.to_string()))).unwrap();
        }
    }
    table.flush().unwrap();
}

#[test]
fn every_kernel_compiles_everywhere_without_a_spill() {
    let compilers = match compilers() {
        Ok(compilers) => compilers,
        Err(absent) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{absent}, and CI must not skip: run .ci/nvrtc");
            return println!("skipped: {absent}; .ci/nvrtc brings it");
        }
    };
    let (programs, headers) = (sources("cu"), sources("cuh"));
    let done = compile_all(&compilers, &programs, &headers);
    if let Some(path) = std::env::var_os("PLIMSOLL_GATE_TABLE") {
        write_table(Path::new(&path), &done);
    }
    let mut faults = Vec::new();
    for (build, usages) in &done {
        match usages {
            Err(error) => faults.push(format!("{build:?}: {error}")),
            Ok(usages) => {
                faults.extend(usages.iter().filter_map(|usage| Some(format!("{build:?}: {} {}", usage.kernel, fault(usage)?))));
            }
        }
    }
    let kernels: usize = done.iter().map(|(_, usages)| usages.as_ref().map_or(0, Vec::len)).sum();
    let versions: Vec<&str> = compilers.iter().map(Compiler::version).collect();
    println!("{kernels} kernels in {} compilations by NVRTC {}", done.len(), versions.join(" and "));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_gate_finds_what_it_is_for() {
    let Ok(compilers) = compilers() else { return println!("skipped: no NVRTC; .ci/nvrtc brings it") };
    let build = |body: &str| {
        let text = format!("extern \"C\" __global__ void __launch_bounds__(128, 16) planted(float* x) {{ {body} }}");
        let options = ["--gpu-architecture=sm_80".to_owned(), "--ptxas-options=-v".to_owned()];
        let compiled = compilers[0].compile("planted.cu", &text, &Sources::new(), &options);
        compiled.and_then(|compiled| usage::of(&compiled.log, &compiled.ptx))
    };
    let plain = &build("x[threadIdx.x] *= 2.0f;").unwrap()[0];
    assert_eq!((fault(plain), plain.kernel.as_str(), plain.threads, plain.blocks, plain.stack), (None, "planted", 128, 16, 0));
    // More values at once than the 32 registers that 16 blocks of 128 threads leave to each.
    let crowded = "float v[96]; for (int i = 0; i < 96; ++i) v[i] = x[threadIdx.x + 128 * i]; \
                   for (int j = 0; j < 3; ++j) for (int i = 0; i < 96; ++i) v[i] = v[i] * v[(i + 31) % 96] + v[(i + 7) % 96]; \
                   for (int i = 0; i < 96; ++i) x[threadIdx.x + 128 * i] = v[i];";
    assert!(fault(&build(crowded).unwrap()[0]).unwrap().starts_with("spills"));
    let large = "__shared__ float s[12289]; s[threadIdx.x] = x[0]; __syncthreads(); x[threadIdx.x] = s[threadIdx.x ^ 1];";
    let found = build(large);
    assert!(found.is_err() || fault(&found.unwrap()[0]).unwrap().contains("static shared memory"));
    assert!(build("\n#include <cuda_bf16.h>\n").unwrap_err().contains("cuda_bf16.h"), "no header is found");
    assert!(build("y[0] = 1;").unwrap_err().contains("identifier \"y\" is undefined"));
}
