//! Statistics as pure functions on slices: quantiles, intervals, batches, trends, early stopping.
//!
//! Nothing here knows what the numbers mean; whether a level passes is decided in `campaign`.

pub mod batch_means;
pub mod bootstrap;
pub mod counted;
pub mod early_stopping;
pub mod histogram;
pub mod interval;
pub mod isotonic;
pub mod least_squares;
pub mod mser;
pub mod quantile;
pub mod share;
pub mod special;
pub mod trend;
