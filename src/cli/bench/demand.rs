//! What the capacity formula is asked at the end of `bench`: assumed inputs, replaced by what was given.

use crate::capacity::plan::{Input, PlanInputs};
use crate::cli::bench::args::DemandArgs;
use crate::cli::exit::{Exit, ExitWith};
use crate::units::rate::{RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// Inputs that were given on the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    average: Option<VisibleRate>,
    recompute: Option<RecomputeMultiplier>,
    headroom: Option<Headroom>,
}

impl Demand {
    /// Reads what was given.
    ///
    /// # Errors
    /// When a quantity makes no sense.
    pub(super) fn given(args: &DemandArgs) -> anyhow::Result<Self> {
        Ok(Self {
            average: args.average_rps.map(VisibleRate::new).transpose().exit_with(Exit::Usage)?,
            recompute: args.recompute.map(RecomputeMultiplier::new).transpose().exit_with(Exit::Usage)?,
            headroom: args.headroom.map(Headroom::new).transpose().exit_with(Exit::Usage)?,
        })
    }

    /// Puts it over what is assumed.
    pub(super) fn over(&self, assumed: PlanInputs) -> PlanInputs {
        PlanInputs {
            average: self.average.map_or(assumed.average, Input::given),
            recompute: self.recompute.map_or(assumed.recompute, Input::given),
            headroom: self.headroom.map_or(assumed.headroom, Input::given),
            ..assumed
        }
    }
}
