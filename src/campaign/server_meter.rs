//! A server's own counters beside a campaign: joined to each level, and what they say of it. It was measured alone, and from a cold
//! prefix cache, or the level says so.

use crate::campaign::instruments::Witnessed;
use crate::campaign::watch::Watched;
use crate::clock::{Monotonic, Nanos};
use crate::node::cores;
use crate::record::finding::{Finding, Severity};
use crate::record::reading::Reading;
use crate::record::server_window::{Added, ServerWindow};
use crate::record::verdict::Invalid;
use crate::telemetry::scrape::{PERIOD, Page, Scraper};
use crate::workload::request::Tally;

/// Share of the prompts that a prefix cache may answer where none is meant to be alike.
const PREFIX_HITS: f64 = 0.05;
/// Share by which the server's count of tokens may be off the received one.
const TOKENS_OFF: f64 = 0.05;

/// Looks at a server's counters while a campaign measures it.
#[derive(Debug)]
pub struct ServerMeter {
    scraper: Scraper,
}

impl ServerMeter {
    /// Begins to look at `page`, with stamps of the campaign's clock: once a second, and more often in a quick run, whose windows are
    /// about a second long.
    #[must_use]
    pub fn start(page: Page, clock: Monotonic, quick: bool) -> Self {
        let period = if quick { Nanos(PERIOD.0 / 4) } else { PERIOD };
        Self { scraper: Scraper::start(page, period, clock, cores::leave_generator_core) }
    }

    /// Adds what the counters say of the level that was `watched` and sent what `made` counts.
    pub fn join(&self, witnessed: &mut Witnessed, watched: &Watched, made: &Tally, shares_prefixes: bool) {
        let (from, to) = watched.window;
        let mut window = self.scraper.over(from, to);
        if let Reading::Value(added) = &mut window.added {
            let begin = from + Nanos::from_secs_f64(added.begin_s);
            added.received_tokens = Reading::Value(watched.series.tokens_between(begin, begin + Nanos::from_secs_f64(added.seconds)));
        }
        // Some servers count an answer's tokens when it ends: those that are under way at either look may be on one side only.
        let under_way = 2.0 * watched.series.max_in_flight() as f64 * (made.output_tokens as f64 / made.made.max(1) as f64);
        let (invalid, findings) = judge(&window, under_way, shares_prefixes);
        witnessed.server = Some(window);
        witnessed.invalid.extend(invalid);
        witnessed.findings.extend(findings);
    }
}

/// What a window says of its level; `under_way` tokens may have been counted on one side only.
#[must_use]
pub fn judge(window: &ServerWindow, under_way: f64, shares_prefixes: bool) -> (Vec<Invalid>, Vec<Finding>) {
    let (mut invalid, mut findings) = (Vec::new(), Vec::new());
    let Some(added) = window.added.value() else { return (invalid, findings) };
    findings.extend(prefix_hits(added).filter(|_| !shares_prefixes));
    if let (Some(by_server), Some(received)) = (added.generation_tokens.get(), added.received_tokens.get()) {
        let seconds = added.seconds;
        let both = format!("the server's counter rose by {by_server:.0} tokens in {seconds:.1} s in which {received:.0} were received");
        if by_server > (1.0 + TOKENS_OFF) * received + under_way {
            invalid.push(Invalid::OtherTraffic { by_server: by_server as u64, received: received as u64 });
            findings.push(Finding::new(
                "other_traffic",
                Severity::Warning,
                format!("{both}: somebody else uses the server"),
                "take the server out of its load balancer, or measure when nobody uses it",
            ));
        } else if received > (1.0 + TOKENS_OFF) * by_server + under_way {
            findings.push(Finding::new(
                "server_counters_partial",
                Severity::Warning,
                format!("{both}: the counters are of a part of what was measured"),
                "read them where all replicas are counted (`--metrics-url`); whether the server was used by others is not known",
            ));
        }
    }
    (invalid, findings)
}

fn prefix_hits(added: &Added) -> Option<Finding> {
    let share = added.prefix_hit_share.get().filter(|share| *share > PREFIX_HITS)?;
    Some(Finding::new(
        "prefix_cache_hits",
        Severity::Warning,
        format!(
            "{:.0} % of the prompts of a level came from the server's prefix cache, and the workload shares no prefixes",
            share * 100.0
        ),
        "start the server without its prefix cache, let it be emptied (vLLM: VLLM_SERVER_DEV_MODE=1), or declare the prefixes that users share",
    ))
}
