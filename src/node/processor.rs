//! The processor as `/proc/cpuinfo` describes it, and the cores this process may use.

/// Instruction sets that decide how fast the CPU device is, as the kernel names them on x86 and on Arm.
const RELEVANT: &[&str] = &[
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "bf16",
    "i8mm",
    "sve",
    "sve2",
];

/// The model's name.
#[must_use]
pub fn model(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "model name").or_else(|| field(cpuinfo, "Model")).filter(|name| !name.is_empty())
}

/// The relevant instruction sets it has, in a fixed order.
#[must_use]
pub fn features(cpuinfo: &str) -> Vec<String> {
    let has = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let has = has.split_whitespace().collect::<Vec<_>>();
    RELEVANT.iter().filter(|feature| has.contains(feature)).map(|feature| (*feature).to_owned()).collect()
}

/// Logical cores this process may run on; 1 or more.
#[must_use]
pub fn usable_cores() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |cores| cores.count().max(1))
}

/// The first `name : value` of the file.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}
