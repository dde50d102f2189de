//! The CPU device on the 124.7 M-parameter Llama shape against what the same run measures of the machine: decode at
//! batch 1 against the read bandwidth, prefill of 512 tokens against the rate of one large product.
//!
//! `cargo bench --bench device -- threads=1 only=decode element=bf16 kernels=portable`. Best of five passes. Decode takes 32 tokens after
//! 16 of context, with ceilings before and after: a noisy machine shows in the two ceilings, not in the ratio alone.
//! Prefill counts two operations per layer parameter and token; attention and the one row of logits are left out, so its
//! share understates the work.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

mod layers;

use std::num::NonZeroUsize;

use layers::{Model, SMALL, argument};
use plimsoll::clock::{Clock, Monotonic};
use plimsoll::device::Ops;
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec, KernelChoice};
use plimsoll::device::source::Element;
use plimsoll::record::ceilings::CeilingKind;

/// What weights are stored as, and how products are computed over them.
const KINDS: [(Element, Arithmetic); 4] = [
    (Element::F32, Arithmetic::F32),
    (Element::F16, Arithmetic::F32),
    (Element::Bf16, Arithmetic::F32),
    (Element::Bf16, Arithmetic::Bf16Dot),
];

fn main() -> anyhow::Result<()> {
    let threads: NonZeroUsize = argument("threads").map_or(Ok(NonZeroUsize::MIN), |text| text.parse())?;
    let tokens: usize = argument("tokens").map_or(Ok(512), |text| text.parse())?;
    let portable = argument("kernels").is_some_and(|kernels| kernels == "portable");
    let (only, wanted) = (argument("only"), argument("element"));
    let asked = |what: &str| only.as_deref().is_none_or(|only| only == what);
    for (element, arithmetic) in KINDS {
        if wanted.as_deref().is_some_and(|wanted| wanted != element.name()) {
            continue;
        }
        let kernels = if portable { KernelChoice::Portable } else { KernelChoice::Best };
        let spec = CpuSpec { kernels, ..CpuSpec::new(threads, arithmetic) };
        let label = format!("{:>4} {:<8} threads {threads}", element.name(), arithmetic.label());
        if CpuDevice::open(spec).is_err() {
            println!("{label} | this processor cannot");
            continue;
        }
        if asked("decode") {
            decode(&label, spec, element)?;
        }
        if asked("prefill") {
            prefill(&label, spec, element, tokens)?;
        }
    }
    Ok(())
}

/// Seconds of the fastest of five runs.
fn best_of_five(mut run: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    (0..5).map(|_| run()).try_fold(f64::INFINITY, |best, seconds| Ok(best.min(seconds?)))
}

/// Bytes a second that memory is read with.
fn reading(ops: &mut CpuDevice) -> anyhow::Result<f64> {
    Ok(ops.ceilings(&mut |_| {})?.best(CeilingKind::MemoryRead, None).unwrap_or(f64::NAN))
}

fn decode(label: &str, spec: CpuSpec, element: Element) -> anyhow::Result<()> {
    const CONTEXT: usize = 16;
    const TOKENS: usize = 32;
    let mut ops = CpuDevice::open(spec)?;
    let before = reading(&mut ops)?;
    let mut model = Model::random(ops, SMALL, element, 64, 256)?;
    let clock = Monotonic::start();
    let prompt: Vec<u32> = (1..=CONTEXT as u32).collect();
    let best = best_of_five(|| {
        let mut token = model.step(&prompt, 0)?;
        let start = clock.now();
        for index in 0..TOKENS {
            token = model.step(&[token], CONTEXT + index)?;
        }
        Ok(clock.now().since(start).as_secs_f64() / TOKENS as f64)
    })?;
    let after = reading(&mut model.ops)?;
    let ceiling = before.max(after);
    // One step reads all of it but the embedding table.
    let rate = ((SMALL.layer_parameters() + SMALL.output_parameters()) * element.bytes()) as f64 / best;
    println!(
        "decode  {label} | {:7.1} tok/s | {:6.1} GB/s of {:6.1} (read before {:.1}, after {:.1}) = {:5.1} % | {}",
        1.0 / best,
        rate / 1e9,
        ceiling / 1e9,
        before / 1e9,
        after / 1e9,
        100.0 * rate / ceiling,
        model.ops.identity().instructions,
    );
    Ok(())
}

fn prefill(label: &str, spec: CpuSpec, element: Element, tokens: usize) -> anyhow::Result<()> {
    let mut ops = CpuDevice::open(spec)?;
    let ceilings = ops.ceilings(&mut |_| {})?;
    let mut model = Model::random(ops, SMALL, element, tokens, tokens)?;
    let prompt: Vec<u32> = (0..tokens as u32).collect();
    let clock = Monotonic::start();
    let best = best_of_five(|| {
        let start = clock.now();
        model.step(&prompt, 0)?;
        Ok(clock.now().since(start).as_secs_f64())
    })?;
    let rate = 2.0 * (SMALL.layer_parameters() * tokens) as f64 / best;
    let product = |element: &str| ceilings.best(CeilingKind::MatrixProduct, Some(element));
    let paired = product("bf16").filter(|_| spec.arithmetic == Arithmetic::Bf16Dot);
    let ceiling = paired.or_else(|| product("f32")).unwrap_or(f64::NAN);
    println!(
        "prefill {label} | {:7.1} tok/s | {:6.1} GFLOP/s of {:6.1} ({}) = {:5.1} % | {}",
        tokens as f64 / best,
        rate / 1e9,
        ceiling / 1e9,
        if paired.is_some() { "own bf16 product" } else { "gemm crate, f32" },
        100.0 * rate / ceiling,
        model.ops.identity().instructions,
    );
    Ok(())
}
