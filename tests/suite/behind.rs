//! A device that computes at once, for a host that learns of it one step late: what a step chose is handed over only when it
//! is finished, and meanwhile fed back to the next one.

use std::collections::VecDeque;

use plimsoll::device::error::DeviceError;
use plimsoll::device::step::{FED_BACK, StepBatch};
use plimsoll::engine::forward::{ForwardPass, LaunchAhead};
use plimsoll::model::config::ModelConfig;

pub(crate) struct Behind {
    inner: Box<dyn ForwardPass>,
    /// Ids that the step launched last chose, which the next one may read.
    chosen: Vec<u32>,
    /// Ids and logits of each step that was launched and not finished.
    under_way: VecDeque<(Vec<u32>, Vec<Vec<f32>>)>,
    /// Logits of the step finished last.
    logits: Vec<Vec<f32>>,
    /// Steps that are finished before one fails.
    pub(crate) finishes: usize,
}

impl Behind {
    pub(crate) fn boxed(inner: Box<dyn ForwardPass>) -> Box<Self> {
        Box::new(Self { inner, chosen: Vec::new(), under_way: VecDeque::new(), logits: Vec::new(), finishes: usize::MAX })
    }
}

impl ForwardPass for Behind {
    fn model(&self) -> &ModelConfig {
        self.inner.model()
    }

    fn step(&mut self, _batch: &StepBatch, _sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        panic!("an engine that runs ahead launches its steps")
    }

    fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(self.logits[row].clone())
    }

    fn ahead(&mut self) -> Option<&mut dyn LaunchAhead> {
        Some(self)
    }
}

impl LaunchAhead for Behind {
    fn launch(&mut self, batch: &StepBatch) -> Result<(), DeviceError> {
        assert!(self.under_way.len() < 2, "two steps are under way at most");
        let mut known = batch.clone();
        for id in known.token_ids.iter_mut().filter(|id| **id & FED_BACK != 0) {
            *id = self.chosen[(*id & !FED_BACK) as usize];
        }
        self.inner.step(&known, &mut self.chosen)?;
        let logits = (0..self.chosen.len()).map(|row| self.inner.logits(row)).collect::<Result<_, _>>()?;
        self.under_way.push_back((self.chosen.clone(), logits));
        Ok(())
    }

    fn finish(&mut self, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        (*sampled, self.logits) = self.under_way.pop_front().expect("a step is under way");
        let Some(left) = self.finishes.checked_sub(1) else { return Err(DeviceError::NoNumber { row: 0 }) };
        self.finishes = left;
        Ok(())
    }
}
