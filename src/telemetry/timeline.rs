//! Samples in order of time, as many as memory is set aside for: the oldest go first.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::record::reading::Reading;
use crate::telemetry::procfs::HostSample;
use crate::telemetry::sample::{Fast, Slow, XidEvent};

/// Two hours at ten a second.
const FAST_MOST: usize = 72_000;
/// Two hours at one a second.
const SLOW_MOST: usize = 7_200;
/// A GPU that reports more than this is known to be broken.
const XIDS_MOST: usize = 1_000;

/// Stamped samples of one kind; a bounded queue.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    most: usize,
    samples: VecDeque<(Nanos, T)>,
}

impl<T> Samples<T> {
    /// None yet, and never more than `most`.
    #[must_use]
    pub fn up_to(most: usize) -> Self {
        Self { most, samples: VecDeque::new() }
    }

    /// Adds one, not earlier than the last.
    pub fn push(&mut self, at: Nanos, sample: T) {
        if self.samples.len() == self.most {
            self.samples.pop_front();
        }
        self.samples.push_back((at, sample));
    }

    /// Those with `from <= at <= to`, in order.
    pub fn within(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = &(Nanos, T)> + Clone {
        let begin = self.samples.partition_point(|(at, _)| *at < from);
        let end = self.samples.partition_point(|(at, _)| *at <= to);
        self.samples.range(begin..end.max(begin))
    }

    /// The last one before `at`.
    #[must_use]
    pub fn last_before(&self, at: Nanos) -> Option<&T> {
        let end = self.samples.partition_point(|(stamp, _)| *stamp < at);
        self.samples.get(end.checked_sub(1)?).map(|(_, sample)| sample)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(Nanos, T)> {
        self.samples.iter()
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&(Nanos, T)> {
        self.samples.back()
    }
}

/// Samples of one GPU.
#[derive(Clone, Debug)]
pub struct GpuTimeline {
    /// What changes within a window.
    pub fast: Samples<Fast>,
    /// What changes seldom.
    pub slow: Samples<Slow>,
    /// The energy counter, joules, at the stamps at which a new value was first seen.
    pub energy: Samples<f64>,
    /// What the energy counter answered last.
    pub energy_now: Reading<f64>,
    /// Since when the GPU no longer answers.
    pub lost: Option<Nanos>,
    /// Readings of `fast` that ever had a value, in the order of `window::covered`.
    pub has: [bool; 4],
}

/// Samples of everything that is watched.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// By place among the watched GPUs.
    pub gpus: Vec<GpuTimeline>,
    /// This process and its machine.
    pub host: Samples<HostSample>,
    /// Faults that the driver reported.
    pub xids: Samples<XidEvent>,
}

impl Timeline {
    /// An empty one of so many GPUs.
    #[must_use]
    pub fn of(gpus: usize) -> Self {
        let gpu = GpuTimeline {
            fast: Samples::up_to(FAST_MOST),
            slow: Samples::up_to(SLOW_MOST),
            energy: Samples::up_to(FAST_MOST),
            energy_now: Reading::default(),
            lost: None,
            has: [false; 4],
        };
        Self { gpus: vec![gpu; gpus], host: Samples::up_to(SLOW_MOST), xids: Samples::up_to(XIDS_MOST) }
    }

    /// What the energy counter of a GPU showed at a time: kept where it is a new value.
    pub fn energy(&mut self, gpu: usize, at: Nanos, joules: Reading<f64>) {
        let gpu = &mut self.gpus[gpu];
        gpu.energy_now = joules;
        if let Some(joules) = joules.get().filter(|joules| gpu.energy.last().is_none_or(|(_, last)| last != joules)) {
            gpu.energy.push(at, joules);
        }
    }

    /// A look at what changes within a window.
    pub fn fast(&mut self, gpu: usize, at: Nanos, sample: Fast) {
        let gpu = &mut self.gpus[gpu];
        if sample.says_lost() {
            gpu.lost = gpu.lost.or(Some(at));
        }
        for (has, covered) in gpu.has.iter_mut().zip(crate::telemetry::window::covered(&sample)) {
            *has |= covered;
        }
        gpu.fast.push(at, sample);
    }

    /// A look at what changes seldom.
    pub fn slow(&mut self, gpu: usize, at: Nanos, sample: Slow) {
        self.gpus[gpu].slow.push(at, sample);
    }
}
