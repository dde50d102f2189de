//! Matrix products as large as memory and time allow: plimsoll's own and cuBLASLt's of the types that models are computed in, and
//! cuBLASLt's alone of the types that only it multiplies. A type that is not there has a note instead of a number.

use crate::device::ceilings::Passes;
use crate::device::cuda::ceilings::{Bench, OWN, Sink};
use crate::device::cuda::lt::{Lt, LtPlan, Numbers, Operands, Shape};
use crate::device::cuda::matmul::{MatmulChoice, Products};
use crate::device::cuda::memory::Buffer;
use crate::device::error::DeviceError;
use crate::device::source::random_element;
use crate::nvidia::Libraries;
use crate::record::ceilings::{Ceiling, CeilingKind};

/// Rows, outputs and inputs of the largest matrix product, and of the smallest.
const LARGEST_SIDE: usize = 8192;
const SMALLEST_SIDE: usize = 256;
/// Below it, a product's rate is that of a small product.
const SMALL_SIDE: usize = 2048;
/// Lowest compute capability whose matrix units know e4m3 (Ada).
const FP8_FROM: (u32, u32) = (8, 9);
/// Random e4m3 numbers that are made; a larger matrix repeats them.
const FP8_NUMBERS: usize = 1 << 20;
/// Largest finite e4m3 number, and the least exponent of a normal one.
const E4M3_MOST: f32 = 448.0;
const E4M3_LEAST_EXPONENT: i32 = -6;

impl Bench<'_> {
    /// Own products and the library's, of the GPU's element type.
    pub(super) fn products(&self, libraries: &Libraries, choice: MatmulChoice, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        if !self.wish.wants(CeilingKind::MatrixProduct) {
            return Ok(());
        }
        let own = (choice != MatmulChoice::Library).then_some(MatmulChoice::Own);
        let theirs = (choice != MatmulChoice::Own).then_some(MatmulChoice::Library);
        for choice in [own, theirs].into_iter().flatten() {
            if choice == MatmulChoice::Library
                && let Err(absence) = &libraries.cublaslt
            {
                sink.note(CeilingKind::MatrixProduct, format!("{} by the library: {absence}", self.gpu.spec.element.name()));
                continue;
            }
            self.product(choice, sink)?;
        }
        Ok(())
    }

    fn product(&self, choice: MatmulChoice, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let (context, element) = (&self.gpu.context, self.gpu.spec.element);
        let kernels = [self.gpu.kernels.matmul, self.gpu.kernels.matmul_logits];
        let mut products = Products::new(context, choice, element, kernels, self.gpu.library)?;
        let numbers = Numbers::from(element);
        let (side, passes) = self.largest(numbers, |shape, operands| products.multiply(&self.stream, shape, operands, 0, true))?;
        let by = products.chosen().into_iter().find(|chosen| chosen.rows == side).map_or_else(|| OWN.to_owned(), |chosen| chosen.by);
        let by = if choice == MatmulChoice::Own { format!("{OWN} {by}") } else { by };
        keep(numbers, side, &passes, &by, sink);
        Ok(())
    }

    /// The library's products of the types that no own kernel multiplies. Nothing else depends on them: where one fails, a note says so.
    pub(super) fn library_types(&self, libraries: &Libraries, choice: MatmulChoice, sink: &mut Sink<'_>) {
        let (major, minor) = self.gpu.facts.compute_capability;
        for numbers in [Numbers::Tf32, Numbers::Fp8] {
            let why = match &libraries.cublaslt {
                _ if choice == MatmulChoice::Own => "only cuBLASLt multiplies it, which was not to be used (`--matmul own`)".to_owned(),
                _ if numbers == Numbers::Fp8 && (major, minor) < FP8_FROM => {
                    format!(
                        "the GPU's compute capability is {major}.{minor}, and matrix units know it from {}.{} on",
                        FP8_FROM.0, FP8_FROM.1
                    )
                }
                Err(absence) => absence.to_string(),
                Ok(_) => match self.library_type(numbers, sink) {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
            };
            sink.note(CeilingKind::MatrixProduct, format!("{}: {why}", numbers.name()));
        }
    }

    fn library_type(&self, numbers: Numbers, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let lt = Lt::new(&self.gpu.context, numbers)?;
        let mut planned: Option<(Shape, usize, LtPlan)> = None;
        let multiply = |shape: Shape, operands: &Operands| {
            if planned.as_ref().is_none_or(|(of, ..)| *of != shape) {
                let (number, plan) = self.fastest(&lt, numbers, shape, operands)?;
                planned = Some((shape, number, plan));
            }
            planned.as_ref().map_or(Ok(()), |(.., plan)| lt.run(&self.stream, plan, operands))
        };
        let (side, passes) = self.largest(numbers, multiply)?;
        let by = planned.map_or(String::new(), |(_, number, _)| format!("cublaslt candidate {number}"));
        keep(numbers, side, &passes, &by, sink);
        Ok(())
    }

    /// The fastest of the library's candidates for a shape, and its number.
    fn fastest(&self, lt: &Lt, numbers: Numbers, shape: Shape, operands: &Operands) -> Result<(usize, LtPlan), DeviceError> {
        let mut best: Option<(f64, usize, LtPlan)> = None;
        for (number, plan) in lt.plans(shape)?.into_iter().enumerate() {
            lt.run(&self.stream, &plan, operands)?;
            let seconds = self.seconds(|| lt.run(&self.stream, &plan, operands))?;
            if best.as_ref().is_none_or(|(fastest, ..)| seconds < *fastest) {
                best = Some((seconds, number, plan));
            }
        }
        best.map(|(_, number, plan)| (number, plan)).ok_or_else(|| DeviceError::Unsupported {
            what: format!("a matrix product in {}", numbers.name()),
            reason: "cuBLASLt has none for this GPU".to_owned(),
            remedy: "Update cuBLASLt".to_owned(),
        })
    }

    /// The side of the largest product that memory and time allow, and its passes. The first call of `multiply` for a shape may choose how.
    fn largest(
        &self,
        numbers: Numbers,
        mut multiply: impl FnMut(Shape, &Operands) -> Result<(), DeviceError>,
    ) -> Result<(usize, Passes), DeviceError> {
        let (free, _) = self.gpu.context.memory()?;
        let bytes = |side: usize| (side * side * (2 * numbers.bytes() + numbers.result_bytes())) as u64;
        let mut side = SMALLEST_SIDE;
        loop {
            let [x, weight] = [self.operand(numbers, side, 5)?, self.operand(numbers, side, 6)?];
            let out = Buffer::new(&self.gpu.context, &matrix(side), (side * side * numbers.result_bytes()) as u64)?;
            let operands = Operands { out: out.at(0), x: x.at(0), weight: weight.at(0), bias: 0 };
            let shape = Shape { rows: side, n: side, k: side, logits: false, bias: false };
            multiply(shape, &operands)?;
            let seconds = self.seconds(|| multiply(shape, &operands))?;
            let larger = 2 * side <= LARGEST_SIDE && 4 * bytes(side) < free && self.fits(8.0 * seconds);
            if !larger {
                return Ok((side, self.passes(1.0, || multiply(shape, &operands))?));
            }
            side *= 2;
        }
    }

    /// A square matrix of random numbers.
    fn operand(&self, numbers: Numbers, side: usize, seed: u64) -> Result<Buffer, DeviceError> {
        let bytes = (side * side * numbers.bytes()) as u64;
        if numbers != Numbers::Fp8 {
            return self.random(&matrix(side), bytes, seed);
        }
        let buffer = Buffer::new(&self.gpu.context, &matrix(side), bytes)?;
        let some = (0..FP8_NUMBERS.min(side * side)).map(|index| e4m3(random_element(seed, index as u64, 0.0, 1.0))).collect::<Vec<_>>();
        for at in (0..bytes).step_by(some.len()) {
            buffer.write(&self.stream, at, &some)?;
        }
        // What is copied from lives until here only.
        self.stream.synchronize()?;
        Ok(buffer)
    }
}

fn matrix(side: usize) -> String {
    format!("a matrix of {side} x {side}")
}

fn keep(numbers: Numbers, side: usize, passes: &Passes, by: &str, sink: &mut Sink<'_>) {
    let kind = CeilingKind::MatrixProduct;
    if side < SMALL_SIDE {
        let name = numbers.name();
        let why = format!(
            "{side}^3 in {name} by {by}, as more takes too much time or memory: the rate of a small product. Give more `--seconds`"
        );
        sink.note(kind, why);
    }
    let ceiling = passes.ceiling(kind, 2.0 * (side as f64).powi(3), by, format!("{side}^3"));
    sink.keep(Ceiling { element: Some(numbers.name().to_owned()), ..ceiling });
}

/// The nearest e4m3 number, its bits: a sign, four bits of exponent, three of fraction, no infinity.
fn e4m3(value: f32) -> u8 {
    let magnitude = value.abs().min(E4M3_MOST);
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(E4M3_LEAST_EXPONENT);
    // Eighths of a power of two: 8 to 16 of them, fewer below the least exponent. 16 carry into the next by themselves.
    let eighths = (magnitude * 2_f32.powi(3 - exponent)).round_ties_even() as i32;
    let sign = u8::from(value.is_sign_negative()) << 7;
    sign | ((exponent - E4M3_LEAST_EXPONENT) * 8 + eighths) as u8
}

#[cfg(test)]
mod tests {
    use super::e4m3;

    #[test]
    fn every_e4m3_number_is_its_own_nearest_and_nothing_is_not_a_number() {
        for bits in (0_u8..=0xff).filter(|bits| bits & 0x7f != 0x7f) {
            let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
            let magnitude = if exponent == 0 { fraction * 2_f32.powi(-6) } else { (1.0 + fraction) * 2_f32.powi(exponent - 7) };
            let value = if bits & 0x80 == 0 { magnitude } else { -magnitude };
            assert_eq!(e4m3(value), bits, "{value}");
        }
        for (value, bits) in [(1000.0, 0x7e), (-f32::MAX, 0xfe), (1.06, 0x38), (1.07, 0x39), (1.95, 0x40), (0.0009, 0), (0.001, 1)] {
            assert_eq!(e4m3(value), bits, "{value}");
        }
    }
}
