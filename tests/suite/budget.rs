//! A budget trades time for width: it shortens windows, keeps what was found, and leaves room for the last reference.

use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::measure::Halt;
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::Silent;
use plimsoll::clock::Nanos;
use plimsoll::record::level::Purpose;
use plimsoll::record::run::HeadlineStatus;

use crate::campaign::{Ran, campaign, mm1, slo};

fn within(seed: u64, objective: &str, budget: Nanos) -> Ran {
    let plan = Plan { slo: Some(slo(objective)), budget: Some(budget), ..Plan::full(seed) };
    campaign(mm1(), &plan, &mut Silent, &Interrupt::default())
}

#[test]
fn half_an_hour_is_mostly_enough_for_a_confirmed_number_with_shorter_windows() {
    // The rate at which a tenth of M/M/1's answers takes longer than ten service times.
    let truth = 50.0 - 10.0_f64.ln() / 0.2;
    let budget = Nanos::from_secs(1800);
    let mut confirmed = 0;
    for seed in 1..=6 {
        let ran = within(seed, "e2e:p90<200ms", budget);
        let headline = ran.result.headline.expect("there is time for a search");
        println!("30 min: {:.0} s, windows x {:?}: {}", ran.took.as_secs_f64(), ran.result.pace, headline.explanation);
        assert!(ran.result.pace.is_some_and(|pace| pace < 0.5), "{:?}", ran.result.pace);
        let bounded = headline.throughput_per_gpu.is_some() || headline.bracket.is_some();
        assert_eq!(ran.result.drift.is_some(), bounded, "the last reference was measured where there is something to check");
        assert!(ran.took.as_secs_f64() < 1.1 * budget.as_secs_f64(), "{:?}", ran.took);
        let Some(found) = headline.throughput_per_gpu else { continue };
        assert_eq!(headline.status, HeadlineStatus::Confirmed);
        assert!((found / truth - 1.0).abs() < 0.15, "found {found:.2}, truth {truth:.2}");
        confirmed += 1;
    }
    assert!(confirmed >= 3, "{confirmed} of 6");
}

#[test]
fn too_little_time_keeps_the_bounds_that_were_found_and_the_levels() {
    let mut bounds = 0;
    for seconds in [30, 60, 120, 240, 480, 900, 1200, 1500] {
        let ran = within(7, "e2e:p99<400ms", Nanos::from_secs(seconds));
        let headline = ran.result.headline.expect("a budget always leaves a headline");
        println!("{seconds} s: took {:.0} s: {}", ran.took.as_secs_f64(), headline.explanation);
        assert!(ran.took.as_secs_f64() < 1.25 * seconds as f64 + 30.0, "{seconds} s: took {:?}", ran.took);
        if ran.result.halted == Some(Halt::Budget) && headline.throughput_per_gpu.is_none() {
            // References are as short as the budget: where they seem to differ, the number is withdrawn for that.
            if headline.explanation.contains("reference level") {
                assert!(matches!(headline.status, HeadlineStatus::Drift | HeadlineStatus::Undecided), "{}", headline.explanation);
                continue;
            }
            assert_eq!(headline.status, HeadlineStatus::OutOfBudget);
            assert!(headline.explanation.contains("--resume"), "{}", headline.explanation);
            let searched = ran.levels.iter().filter(|level| level.purpose == Purpose::Search).count();
            assert!(headline.bracket.is_none() || searched > 0);
            bounds += usize::from(headline.bracket.is_some());
            assert_eq!(headline.bracket.is_some(), ran.result.drift.is_some(), "bounds are checked for drift as a number is");
        }
    }
    assert!(bounds > 0, "one of them ends between search and confirmation");
}
