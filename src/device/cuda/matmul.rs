//! Which kernel multiplies: for each shape the fastest of the own ones and cuBLASLt's, timed once on the operands at hand.

use std::collections::HashMap;
use std::sync::Arc;

use crate::device::cuda::driver::{Context, Event, Stream};
use crate::device::cuda::kernels::{MatmulKernels, SKINNY_ROWS};
use crate::device::cuda::launch::Launch;
use crate::device::cuda::lt::{Lt, LtPlan, Operands, Shape};
use crate::device::error::DeviceError;
use crate::device::source::Element;

/// Which products may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatmulChoice {
    /// The fastest of all that are there.
    #[default]
    Best,
    /// plimsoll's own kernels.
    Own,
    /// cuBLASLt's.
    Library,
}

/// How one shape is computed.
#[derive(Clone, Debug)]
enum Plan {
    /// By the skinny kernel of this index.
    Skinny(usize),
    /// By the tiled kernel.
    Tile,
    /// By cuBLASLt, its candidate of this number.
    Library(LtPlan, usize),
}

impl Plan {
    fn label(&self) -> String {
        match self {
            Self::Skinny(index) => format!("skinny_{}", SKINNY_ROWS[*index]),
            Self::Tile => "tile".to_owned(),
            Self::Library(_, candidate) => format!("cublaslt candidate {candidate}"),
        }
    }
}

/// A choice that was made, for the record of a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChosenProduct {
    /// Rows of the input.
    pub rows: usize,
    /// Outputs of a row.
    pub n: usize,
    /// Inputs of a row.
    pub k: usize,
    /// Which kernel or algorithm.
    pub by: String,
    /// Seconds it took when it was chosen; `None` where nothing was timed.
    pub seconds: Option<f64>,
}

/// Rows and columns that one block of the tiled kernel computes.
const fn tile_of(element: Element) -> (usize, usize, u32) {
    match element {
        Element::F32 => (64, 64, 256),
        Element::F16 | Element::Bf16 => (128, 128, 256),
    }
}
/// Outputs that one block of a skinny kernel computes.
const SKINNY_OUTPUTS: usize = 16;
/// Threads of a block of a skinny kernel.
const SKINNY_BLOCK: u32 = 256;
/// Times a candidate runs when it is timed, after once unmeasured.
const TIMED: u32 = 3;

/// All products of one engine.
#[derive(Debug)]
pub(super) struct Products {
    choice: MatmulChoice,
    element: Element,
    kernels: MatmulKernels,
    kernels_logits: MatmulKernels,
    lt: Option<Lt>,
    events: (Event, Event),
    plans: HashMap<Shape, (Plan, Option<f64>)>,
}

impl Products {
    pub(super) fn new(
        context: &Arc<Context>,
        choice: MatmulChoice,
        element: Element,
        [kernels, kernels_logits]: [MatmulKernels; 2],
        library: bool,
    ) -> Result<Self, DeviceError> {
        let lt = (library && choice != MatmulChoice::Own).then(|| Lt::new(context, element.into())).transpose()?;
        let events = (Event::timed(context)?, Event::timed(context)?);
        Ok(Self { choice, element, kernels, kernels_logits, lt, events, plans: HashMap::new() })
    }

    /// Queues the product. Where the shape is new and `may_time` holds, every candidate computes it and the fastest is
    /// kept; all of them write the same numbers.
    pub(super) fn multiply(
        &mut self,
        stream: &Stream,
        shape: Shape,
        operands: &Operands,
        bias_f32: u64,
        may_time: bool,
    ) -> Result<(), DeviceError> {
        if let Some((plan, _)) = self.plans.get(&shape) {
            return self.run(stream, plan, shape, operands, bias_f32);
        }
        let candidates = self.candidates(shape)?;
        let chosen = match candidates.len() {
            1 => (candidates[0].clone(), None),
            _ if !may_time => (candidates[0].clone(), None),
            _ => self.fastest(stream, shape, operands, bias_f32, candidates)?,
        };
        self.run(stream, &chosen.0, shape, operands, bias_f32)?;
        self.plans.insert(shape, chosen);
        Ok(())
    }

    /// What could compute `shape`, the likely best first.
    fn candidates(&self, shape: Shape) -> Result<Vec<Plan>, DeviceError> {
        let mut candidates = Vec::new();
        let own = self.choice != MatmulChoice::Library || self.lt.is_none();
        let skinny = SKINNY_ROWS.iter().position(|rows| shape.rows <= *rows).filter(|_| own);
        candidates.extend(skinny.map(Plan::Skinny));
        if let Some(lt) = &self.lt {
            let plans = lt.plans(shape)?.into_iter().enumerate();
            candidates.extend(plans.map(|(number, plan)| Plan::Library(plan, number)));
        }
        if own || candidates.is_empty() {
            candidates.push(Plan::Tile);
        }
        Ok(candidates)
    }

    fn fastest(
        &self,
        stream: &Stream,
        shape: Shape,
        operands: &Operands,
        bias_f32: u64,
        candidates: Vec<Plan>,
    ) -> Result<(Plan, Option<f64>), DeviceError> {
        let mut best: Option<(Plan, f64)> = None;
        for plan in candidates {
            self.run(stream, &plan, shape, operands, bias_f32)?;
            self.events.0.record(stream)?;
            for _ in 0..TIMED {
                self.run(stream, &plan, shape, operands, bias_f32)?;
            }
            self.events.1.record(stream)?;
            let seconds = self.events.1.seconds_since(&self.events.0)? / f64::from(TIMED);
            if best.as_ref().is_none_or(|(_, fastest)| seconds < *fastest) {
                best = Some((plan, seconds));
            }
        }
        let (plan, seconds) = best.expect("there is always the tiled kernel or the library");
        tracing::debug!(rows = shape.rows, n = shape.n, k = shape.k, by = plan.label(), seconds, "chose a matrix product");
        Ok((plan, Some(seconds)))
    }

    fn run(&self, stream: &Stream, plan: &Plan, shape: Shape, operands: &Operands, bias_f32: u64) -> Result<(), DeviceError> {
        let Shape { rows, n, k, logits, .. } = shape;
        let kernels = if logits { &self.kernels_logits } else { &self.kernels };
        let args = [operands.out.into(), operands.x.into(), operands.weight.into(), bias_f32.into(), rows.into(), n.into(), k.into()];
        match plan {
            Plan::Skinny(index) => Launch::over(stream, kernels.skinny[*index], n.div_ceil(SKINNY_OUTPUTS), SKINNY_BLOCK).with(&args),
            Plan::Tile => {
                let (tile_rows, tile_outputs, block) = tile_of(self.element);
                let grid = (n.div_ceil(tile_outputs), rows.div_ceil(tile_rows), 1);
                Launch { stream, function: kernels.tile, grid, block }.with(&args)
            }
            Plan::Library(plan, _) => self.lt.as_ref().expect("a plan of the library came from it").run(stream, plan, operands),
        }
    }

    /// What was chosen so far, the largest first.
    pub(super) fn chosen(&self) -> Vec<ChosenProduct> {
        let mut chosen: Vec<_> = self
            .plans
            .iter()
            .map(|(shape, (plan, seconds))| ChosenProduct { rows: shape.rows, n: shape.n, k: shape.k, by: plan.label(), seconds: *seconds })
            .collect();
        chosen.sort_by_key(|product| (product.rows, product.n, product.k));
        chosen.reverse();
        chosen
    }
}
