//! The capacity formula, in the capacity model's own terms.

use std::num::NonZeroU32;

use plimsoll::capacity::formula::required_capacity;
use plimsoll::units::rate::{CallRatePerGpu, LoadMultiplier, RecomputeMultiplier, VisibleRate};
use plimsoll::units::share::Headroom;
use proptest::prelude::*;

fn gpus(peak: f64, recompute: f64, throughput_per_gpu: f64, headroom: f64) -> plimsoll::units::gpus::Gpus {
    required_capacity(
        VisibleRate::new(peak).expect("inside its range"),
        RecomputeMultiplier::new(recompute).expect("inside its range"),
        CallRatePerGpu::new(throughput_per_gpu).expect("inside its range"),
        Headroom::new(headroom).expect("inside its range"),
    )
}

#[test]
fn rows_worked_by_hand_come_out() {
    // peak, recompute, throughput per GPU, headroom; exact, whole GPUs, GPUs in groups of 4.
    let rows = [
        (100.0, 1.3, 8.0, 0.25, 20.3125, 21, 24),
        (100.0, 1.0, 8.0, 0.0, 12.5, 13, 16),
        (2.0, 1.0, 2.0, 0.0, 1.0, 1, 4),
        (50.0, 2.0, 10.0, 0.3, 13.0, 13, 16),
        (16.0, 1.5, 8.0, 0.0, 3.0, 3, 4),
        (0.2777777777777778, 1.2, 12.0, 0.25, 0.034_722_222_222_222_224, 1, 4),
        (3000.0, 4.5, 40.0, 0.2, 405.0, 405, 408),
    ];
    for (peak, recompute, throughput, headroom, exact, whole, in_fours) in rows {
        let need = gpus(peak, recompute, throughput, headroom);
        assert!((need.get() - exact).abs() <= 1e-12 * exact, "{} is not {exact}", need.get());
        assert_eq!(need.whole_gpus(), whole, "of {exact}");
        let groups = need.in_groups_of(NonZeroU32::new(4).unwrap());
        assert_eq!((groups.gpus, groups.replicas), (in_fours, in_fours / 4), "of {exact}");
    }
}

#[test]
fn what_is_whole_on_paper_is_not_rounded_up_past_it() {
    // 0.1 * 3 is 0.30000000000000004 in binary: ten of it are 3 GPUs, not 4.
    let need = gpus(0.1, 3.0, 0.1, 0.0);
    assert!(need.get() > 3.0);
    assert_eq!(need.whole_gpus(), 3);
    assert_eq!(gpus(1.1, 1.1, 1.21, 0.0).whole_gpus(), 1);
    assert_eq!(gpus(3.000_001, 1.0, 1.0, 0.0).whole_gpus(), 4, "a real excess still costs a GPU");
}

#[test]
fn nonsense_is_refused_with_the_value_and_the_range() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, -0.0] {
        assert!(VisibleRate::new(value).is_err(), "{value}");
        assert!(CallRatePerGpu::new(value).is_err(), "{value}");
        assert!(RecomputeMultiplier::new(value).is_err(), "{value}");
        assert!(LoadMultiplier::new(value).is_err(), "{value}");
    }
    assert!(Headroom::new(0.0).is_ok(), "no headroom is a choice");
    for value in [f64::NAN, f64::INFINITY, -0.01, 25.0] {
        assert!(Headroom::new(value).is_err(), "{value}");
    }
    let message = Headroom::new(25.0).unwrap_err().to_string();
    assert_eq!(message, "a headroom, as a fraction of the need, cannot be `25`. Give a number from 0 to 10");
}

/// Inputs far inside their ranges.
fn inputs() -> impl Strategy<Value = (f64, f64, f64, f64)> {
    (1e-3..1e6_f64, 0.1..50.0_f64, 1e-3..1e4_f64, 0.0..2.0_f64)
}

proptest! {
    #[test]
    fn more_peak_recompute_or_headroom_never_needs_fewer_gpus((peak, recompute, throughput, headroom) in inputs(), more in 1.0..3.0_f64) {
        let need = gpus(peak, recompute, throughput, headroom);
        prop_assert!(gpus(peak * more, recompute, throughput, headroom) >= need);
        prop_assert!(gpus(peak, recompute * more, throughput, headroom) >= need);
        prop_assert!(gpus(peak, recompute, throughput, headroom + more) > need);
        prop_assert!(gpus(peak, recompute, throughput * more, headroom) <= need);
    }

    #[test]
    fn doubling_peak_and_throughput_together_changes_nothing((peak, recompute, throughput, headroom) in inputs(), scale in 0.1..10.0_f64) {
        let need = gpus(peak, recompute, throughput, headroom).get();
        let both = gpus(peak * scale, recompute, throughput * scale, headroom).get();
        prop_assert!((both / need - 1.0).abs() < 1e-12);
        let twice = gpus(peak * 2.0, recompute, throughput, headroom).get();
        prop_assert!((twice / need - 2.0).abs() < 1e-12);
    }

    #[test]
    fn rounding_up_covers_the_need_by_less_than_one_unit((peak, recompute, throughput, headroom) in inputs(), size in 1_u32..64) {
        let need = gpus(peak, recompute, throughput, headroom);
        let whole = need.whole_gpus();
        prop_assert!(whole as f64 >= need.get() * (1.0 - 1e-11));
        prop_assert!(whole == 1 || (whole as f64) < need.get() + 1.0);
        let groups = need.in_groups_of(NonZeroU32::new(size).unwrap());
        prop_assert_eq!(groups.gpus, groups.replicas * u64::from(size));
        prop_assert!(groups.gpus >= whole);
        prop_assert!(groups.gpus < whole + u64::from(size));
    }
}
