//! The PTX in the program is made of the kernels beside it.

use plimsoll::device::cuda::program::options;
use plimsoll::device::cuda::ptx::{ARCHITECTURE, COMPILER};
use plimsoll::device::source::Element;

use super::{compilers, root, sources};

#[test]
fn the_code_for_nodes_without_a_compiler_is_made_of_these_kernels() {
    let compilers = compilers().unwrap_or_default();
    let Some(compiler) = compilers.iter().find(|compiler| compiler.version() == COMPILER) else {
        assert!(std::env::var_os("CI").is_none(), "there is no NVRTC {COMPILER} to compare the embedded PTX with");
        return println!("skipped: no NVRTC {COMPILER} (`.ci/nvrtc` brings it)");
    };
    let write = std::env::var_os("PLIMSOLL_GOLDEN").is_some_and(|value| value == "write");
    let (programs, headers) = (sources("cu"), sources("cuh"));
    let mut bytes = 0;
    for (file, text) in &programs {
        for element in [Element::Bf16, Element::F32] {
            let ptx =
                compiler.compile(file, text, &headers, &options(element, ARCHITECTURE)).unwrap_or_else(|log| panic!("{file}: {log}")).ptx;
            let path = root().join("kernels/ptx").join(format!("{}.{}.ptx.zst", file.trim_end_matches(".cu"), element.name()));
            if write {
                std::fs::write(&path, zstd::encode_all(ptx.as_bytes(), 19).unwrap()).unwrap();
            }
            let kept = std::fs::read(&path).unwrap_or_default();
            bytes += kept.len();
            let of_these = zstd::decode_all(&kept[..]).is_ok_and(|kept| kept == ptx.as_bytes());
            assert!(of_these, "{} is of other sources: run `PLIMSOLL_GOLDEN=write cargo test --test nvrtc embedded`", path.display());
        }
    }
    println!("{bytes} bytes of PTX are embedded");
    assert!(bytes < 1 << 20, "{bytes} bytes are too many to embed");
}
