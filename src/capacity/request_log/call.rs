//! One line of a request log, as what it means.

use bytemuck::{Pod, Zeroable};

/// A call, small and plain, so that millions can be sorted outside of memory. A sentinel says that the log does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Call {
    /// When it began, nanoseconds since 1970 UTC.
    pub at: i64,
    /// Which visible request it belongs to, hashed; 0 where the log does not tell.
    pub request: u64,
    /// Which call it is, hashed; 0 where the log does not tell.
    pub id: u64,
    /// From its beginning to its end, milliseconds; NaN where the log does not tell.
    pub latency_ms: f32,
    /// Prompt tokens; [`Call::UNTOLD`] where the log does not tell.
    pub input_tokens: u32,
    /// Answer tokens; [`Call::UNTOLD`] where the log does not tell.
    pub output_tokens: u32,
    /// Sessions or calls at once when it began; [`Call::UNTOLD`] where the log does not tell.
    pub concurrent: u32,
    /// 1 where it succeeded, 0 where it failed.
    pub succeeded: u32,
    /// Keeps the size a multiple of its alignment.
    pub unused: u32,
}

impl Call {
    /// In a count: the log does not tell.
    pub const UNTOLD: u32 = u32::MAX;

    /// Whether it brought what was asked.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.succeeded != 0
    }

    /// Milliseconds, where the log tells.
    #[must_use]
    pub fn latency_ms(&self) -> Option<f64> {
        Some(f64::from(self.latency_ms)).filter(|latency| latency.is_finite())
    }

    /// A count, where the log tells.
    #[must_use]
    pub fn told(count: u32) -> Option<u64> {
        (count != Self::UNTOLD).then_some(u64::from(count))
    }
}
