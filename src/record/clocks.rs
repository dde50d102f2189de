//! Why clocks are what they are: the driver's own reasons, and the limits that an operator may have set.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::reading::Reading;

/// Why clocks are not at their highest, as the driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockReason {
    /// Nothing runs.
    Idle,
    /// Application clocks are set, or clocks are locked.
    ApplicationClocks,
    /// The power limit: normal on large parts.
    PowerCap,
    /// Hardware slowdown, of whatever cause.
    HardwareSlowdown,
    /// Another GPU of its group is slower.
    SyncBoost,
    /// Too hot, slowed by the driver.
    SoftwareThermal,
    /// Too hot, slowed by the hardware.
    HardwareThermal,
    /// The power supply asked for less.
    PowerBrake,
    /// A display's setting.
    DisplayClocks,
}

impl ClockReason {
    /// Every one, with its bit in the driver's word.
    pub const ALL: [(Self, u64); 9] = [
        (Self::Idle, 0x1),
        (Self::ApplicationClocks, 0x2),
        (Self::PowerCap, 0x4),
        (Self::HardwareSlowdown, 0x8),
        (Self::SyncBoost, 0x10),
        (Self::SoftwareThermal, 0x20),
        (Self::HardwareThermal, 0x40),
        (Self::PowerBrake, 0x80),
        (Self::DisplayClocks, 0x100),
    ];

    /// Its bit in the driver's word.
    #[must_use]
    pub fn bit(self) -> u64 {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or(0, |(_, bit)| *bit)
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::ApplicationClocks => "application or locked clocks",
            Self::PowerCap => "power cap",
            Self::HardwareSlowdown => "hardware slowdown",
            Self::SyncBoost => "sync boost",
            Self::SoftwareThermal => "thermal slowdown (software)",
            Self::HardwareThermal => "thermal slowdown (hardware)",
            Self::PowerBrake => "power brake",
            Self::DisplayClocks => "display clocks",
        }
    }
}

/// A reason and how much of the window it held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonShare {
    /// Which.
    pub reason: ClockReason,
    /// Share of the samples, 0..=1.
    pub share: f64,
}

/// What an operator may have set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Enforced power limit, watts.
    pub power_w: Reading<f64>,
    /// Application clock of the SMs, MHz.
    pub sm_clock_mhz: Reading<u32>,
    /// Application clock of the memory, MHz.
    pub memory_clock_mhz: Reading<u32>,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Enforced power limit, watts.
    Power,
    /// Application clock of the SMs, MHz.
    SmClock,
    /// Application clock of the memory, MHz.
    MemoryClock,
}

/// Somebody set a limit while a run went on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Which.
    pub limit: Limit,
    /// What it was.
    pub from: f64,
    /// What it became.
    pub to: f64,
    /// When it was seen, seconds after the window began; negative where it was before, `None` where nobody watched.
    pub at_s: Option<f64>,
}

impl fmt::Display for LimitChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, unit) = match self.limit {
            Limit::Power => ("power limit", "W"),
            Limit::SmClock => ("SM application clock", "MHz"),
            Limit::MemoryClock => ("memory application clock", "MHz"),
        };
        write!(out, "{what} changed from {:.0} to {:.0} {unit}", self.from, self.to)?;
        match self.at_s {
            Some(at_s) if at_s >= 0.0 => write!(out, ", {at_s:.0} s into the window"),
            Some(at_s) => write!(out, ", {:.0} s before the window", -at_s),
            None => write!(out, " since the level before"),
        }
    }
}

impl Limits {
    /// What a later look says, and what was known before where it says nothing.
    #[must_use]
    pub fn or(self, later: Self) -> Self {
        fn newer<T: Copy>(known: Reading<T>, later: Reading<T>) -> Reading<T> {
            if later.value().is_some() { later } else { known }
        }
        Self {
            power_w: newer(self.power_w, later.power_w),
            sm_clock_mhz: newer(self.sm_clock_mhz, later.sm_clock_mhz),
            memory_clock_mhz: newer(self.memory_clock_mhz, later.memory_clock_mhz),
        }
    }

    /// What differs in `later`; a limit that is not known on both sides does not.
    #[must_use]
    pub fn changes(&self, later: &Self, at_s: Option<f64>) -> Vec<LimitChange> {
        let mhz = |clock: Reading<u32>| clock.map(f64::from);
        let pairs = [
            (Limit::Power, self.power_w, later.power_w),
            (Limit::SmClock, mhz(self.sm_clock_mhz), mhz(later.sm_clock_mhz)),
            (Limit::MemoryClock, mhz(self.memory_clock_mhz), mhz(later.memory_clock_mhz)),
        ];
        let changed = pairs.into_iter().filter_map(|(limit, from, to)| Some((limit, from.get()?, to.get()?)));
        changed.filter(|(_, from, to)| from != to).map(|(limit, from, to)| LimitChange { limit, from, to, at_s }).collect()
    }
}
