//! Quantities at interfaces, each a type of its own: what cannot be divided by what does not compile.
//!
//! Visible requests and inference calls are different things, and so are the rates of them. The only ways between
//! them are `VisibleRate * RecomputeMultiplier = CallRate` and `CallRate / CallRatePerGpu = Gpus`; tokens lead nowhere.
//! Constructors refuse what is no quantity, so that arithmetic on quantities cannot fail. Nothing here prints.

pub mod gpus;
pub mod rate;
pub mod share;

/// A number that is no such quantity.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{quantity} cannot be `{value}`. Give a number from {smallest} to {largest}")]
pub struct NotAQuantity {
    /// What was to be made.
    pub quantity: &'static str,
    /// From what.
    pub value: f64,
    /// Smallest accepted.
    pub smallest: f64,
    /// Largest accepted.
    pub largest: f64,
}

/// `value` if it lies within both ends; NaN lies nowhere.
fn within(quantity: &'static str, value: f64, smallest: f64, largest: f64) -> Result<f64, NotAQuantity> {
    if (smallest..=largest).contains(&value) { Ok(value) } else { Err(NotAQuantity { quantity, value, smallest, largest }) }
}
