//! What stands behind a plan's machines: waiting, redundancy, retries, a replica that slows down as it fills. Against exact or published figures.

use std::num::NonZeroU32;

use plimsoll::capacity::mix::{MixDifference, TokenMix};
use plimsoll::capacity::redundancy::{enough_stand, replicas};
use plimsoll::capacity::retries::Overload;
use plimsoll::capacity::staffing::{erlang_c, mean_wait, mean_wait_of_bursts, square_root, waits_longer};
use plimsoll::capacity::state_queue::StateQueue;

fn is_near(found: f64, expected: f64, share: f64) -> bool {
    (found - expected).abs() <= share * expected.abs()
}

#[test]
fn waiting_has_erlangs_probabilities() {
    // One server waits as often as it is busy; two at half load a third of the time; a textbook's table for ten.
    assert!(is_near(erlang_c(1, 0.7), 0.7, 1e-12));
    assert!(is_near(erlang_c(2, 1.0), 1.0 / 3.0, 1e-12));
    assert!(is_near(erlang_c(10, 8.0), 0.4092, 1e-3), "{}", erlang_c(10, 8.0));
    // M/M/1: rho / (1 - rho) service times.
    assert!(is_near(mean_wait(1, 0.8), 4.0, 1e-12));
    assert!(is_near(waits_longer(1, 0.5, 2.0), 0.5 * (-1.0_f64).exp(), 1e-12));
    assert!(is_near(mean_wait_of_bursts(1, 0.8, 1.0, 0.0), 2.0, 1e-12), "M/D/1 waits half as long");
    assert_eq!((erlang_c(3, 3.0), mean_wait(3, 4.0)), (1.0, f64::INFINITY));
    let thousands = erlang_c(5000, 4900.0);
    assert!((0.0..0.3).contains(&thousands), "no overflow: {thousands}");
}

#[test]
fn the_square_root_rule_asks_for_less_headroom_the_larger_a_fleet_is() {
    let headroom = |offered: f64| square_root(offered, 1.0) / offered - 1.0;
    assert!(is_near(headroom(16.0), 0.25, 1e-12) && is_near(headroom(400.0), 0.05, 1e-12));
    // By Halfin and Whitt about 22 % of calls wait at beta 1, whatever the size.
    assert!(is_near(erlang_c(square_root(10_000.0, 1.0) as u64, 10_000.0), 0.2234, 0.01));
}

#[test]
fn enough_replicas_stand_with_the_probability_that_was_asked_for() {
    assert!(is_near(enough_stand(5, 4, 0.9), 0.918_54, 1e-9));
    assert!(is_near(enough_stand(6, 4, 0.9), 0.984_15, 1e-9));
    assert_eq!(replicas(4, 0.9, 0.95), Some(6));
    assert_eq!(replicas(4, 0.9, 0.99), Some(7));
    assert_eq!((replicas(4, 1.0, 0.99), replicas(4, 0.0, 0.5), replicas(4, 0.9, 1.0)), (Some(4), None, None));
    assert_eq!(replicas(0, 0.5, 0.99), Some(0));
}

#[test]
fn clients_that_try_again_offer_a_small_fleet_more_than_there_is() {
    let four = NonZeroU32::new(4).unwrap();
    let overload = Overload::steady(120.0, 100.0, four);
    assert!(is_near(overload.offered, 277.0, 0.005), "{overload:?}");
    assert!(is_near(overload.offered * (1.0 - overload.failing), 100.0, 1e-6), "what is served is what can be");
    assert!(is_near(120.0 * (1.0 - overload.lost), 100.0, 1e-6), "{overload:?}");
    let carried = Overload::steady(99.0, 100.0, four);
    assert_eq!((carried.failing, carried.amplification), (0.0, 1.0));
    let once = Overload::steady(120.0, 100.0, NonZeroU32::MIN);
    assert!(is_near(once.offered, 120.0, 1e-9) && is_near(once.failing, 1.0 / 6.0, 1e-9));
}

#[test]
fn a_replica_that_slows_down_as_it_fills_has_the_published_figures() {
    let replica =
        StateQueue { alpha: 12.0, beta: 0.05, gamma: 0.0005, max_batch: 48, max_queue: 128, input_tokens: 128.0, output_tokens: 512.0 };
    let steady = replica.at(3.0).unwrap();
    for (found, published) in [
        (steady.wait_ms, 28.275_39),
        (steady.in_service, 31.620_514),
        (steady.ttft_ms, 75.317_46),
        (steady.itl_ms, 20.534_498),
        (replica.full_rps() * 0.999, 3.820_823_2),
    ] {
        assert!(is_near(found, published, 1e-5), "{found} {published}");
    }
    let within = replica.within(60.0, 20.0).unwrap();
    let (at, above) = (replica.at(within).unwrap(), replica.at(within * 1.001).unwrap());
    assert!(at.ttft_ms <= 60.0 && at.itl_ms <= 20.0, "{at:?}");
    assert!(above.ttft_ms > 60.0 || above.itl_ms > 20.0, "{above:?}");
    assert_eq!(replica.within(60.0, 1.0), None, "one call alone is slower");
    assert!(replica.at(1e4).unwrap().served_rps < 3.9, "a full queue turns calls away");
    assert_eq!(replica.at(0.0), None);
}

#[test]
fn a_rate_for_other_lengths_is_bounded_by_the_lengths_that_grew_most() {
    let measured = TokenMix { input: 1000.0, output: 200.0 };
    let between = |input, output| MixDifference::between(measured, TokenMix { input, output });
    assert_eq!(between(1000.0, 200.0), None);
    assert_eq!(between(0.0, 200.0), None, "a log without prompts tells nothing");
    let longer = between(2000.0, 210.0).unwrap();
    assert!(longer.is_refused() && is_near(longer.at_worst(), 0.5, 1e-12) && is_near(longer.at_best(), 1.0 / 1.05, 1e-12));
    let shorter = between(900.0, 170.0).unwrap();
    assert!(!shorter.is_refused());
    assert_eq!((shorter.at_worst(), shorter.at_best()), (1.0, 1.0), "shorter calls earn nothing that was not measured");
    // Whatever prefill and decode cost, the bound is safe.
    for (prefill, decode) in [(1e3, 1e2), (1e5, 1e1), (1e2, 1e5)] {
        let cost = |mix: TokenMix| mix.input / prefill + mix.output / decode;
        let really = cost(longer.measured) / cost(longer.asked);
        assert!(longer.at_worst() <= really && really <= longer.at_best());
    }
}
