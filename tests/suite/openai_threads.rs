//! Several threads that ask one server are one client: the same requests, the same records, nothing lost, nobody's work hidden.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll::campaign::ceiling;
use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::judge::{Enough, Judge, Pulse, Settled, Window};
use plimsoll::campaign::progress::Silent;
use plimsoll::campaign::tally::Brief;
use plimsoll::campaign::watch::Watch;
use plimsoll::clock::{Monotonic, Nanos, ThreadUse};
use plimsoll::http::endpoint::Address;
use plimsoll::load::arrivals::Arrivals;
use plimsoll::load::stop::AfterRequests;
use plimsoll::load::{Chunks, Manner as DriveManner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::record::target::TargetIdentity;
use plimsoll::target::null::Null;
use plimsoll::target::openai::Server;
use plimsoll::target::openai::ask::Api;
use plimsoll::target::openai::clients::Clients;
use plimsoll::target::openai::protocol::Protocol;
use plimsoll::target::openai::reactor::OpenAi;
use plimsoll::target::{Event, Slot, Target};
use plimsoll::workload::request::Request;

use crate::openai_target::{Alike, SOON, closed, driven, manner, server_at};
use crate::support::openai::OpenAiServer;
use crate::support::openai::script::Behaviour;
use crate::support::openai::truth::Ended;

fn asked(address: Address) -> Arc<Server> {
    let identity = TargetIdentity { kind: "server".to_owned(), devices: 4, ..TargetIdentity::unknown() };
    Arc::new(Server { identity, ..server_at("http://127.0.0.1:1", address, manner(Api::Completions), SOON) })
}

fn three(server: &OpenAiServer, clock: Monotonic) -> Clients {
    Clients::start(&asked(Address::Tcp(server.addr)), 3, clock).unwrap()
}

/// What does not depend on time, of the first `count` requests.
fn plain(records: &[RequestRecord], count: u64) -> BTreeMap<u64, String> {
    let told = |record: &RequestRecord| {
        format!(
            "{:?} {} {} {} {:?}",
            record.ending, record.prompt_tokens, record.requested_tokens, record.output_tokens, record.token_count
        )
    };
    records.iter().filter(|record| record.id < count).map(|record| (record.id, told(record))).collect()
}

#[test]
fn three_threads_send_the_same_requests_and_record_the_same_as_one() {
    let run = |threads: usize| {
        let server = OpenAiServer::start(|asked| Behaviour {
            tokens: Some(asked.max_tokens.unwrap_or(1) + (asked.prompt_digest % 3) as u32),
            ..Behaviour::default()
        });
        let mut clock = Monotonic::start();
        let server_asked = asked(Address::Tcp(server.addr));
        let mut target: Box<dyn Target> = match threads {
            1 => Box::new(OpenAi::new(server_asked, clock).unwrap()),
            _ => Box::new(Clients::start(&server_asked, threads, clock).unwrap()),
        };
        let records = driven(&mut *target, &mut clock, 8, 160);
        assert_eq!((target.identity().devices, target.counters_by_device().len()), (4, 1), "it is one server");
        assert_eq!(target.events_lost(), 0);
        let mut sent: Vec<_> = server.stop().requests.into_iter().map(|request| (request.id.clone().unwrap(), request.text)).collect();
        sent.retain(|(id, _)| u64::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap() < 120);
        sent.sort();
        (plain(&records, 120), sent)
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.0.len(), 120);
    assert_eq!(one.0, three.0);
    assert_eq!(one.1, three.1);
}

#[test]
fn a_burst_of_tokens_on_all_threads_loses_no_event() {
    let server = OpenAiServer::start(|_| Behaviour { tokens: Some(200), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = three(&server, clock);
    let records = driven(&mut target, &mut clock, 48, 300);
    for record in records.iter().take(300) {
        assert!(record.completed());
        assert_eq!((record.output_tokens, record.chunks.iter().map(|chunk| chunk.tokens).sum::<u32>()), (200, 200));
        assert!(record.chunks.is_sorted_by_key(|chunk| chunk.at) && record.sent.unwrap() <= record.first_byte.unwrap());
    }
    assert_eq!(target.events_lost(), 0);
    let used = target.client_threads();
    assert!(used.len() == 3 && used.iter().all(|thread| thread.cpu() > Nanos::ZERO), "{used:?}");
}

#[test]
fn an_event_is_heard_of_at_once() {
    let server = OpenAiServer::start(|_| Behaviour { ttft: Duration::from_millis(3), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = three(&server, clock);
    let records = driven(&mut target, &mut clock, 1, 60);
    let mut took: Vec<f64> = records.windows(2).map(|pair| pair[1].sent.unwrap().since(pair[0].end).as_millis_f64()).collect();
    took.sort_by(f64::total_cmp);
    assert!(took[took.len() / 2] < 2.0, "the next request follows the last one: {took:?}");
}

#[test]
fn a_cancelled_request_is_let_go_on_whatever_thread_it_is() {
    let server = OpenAiServer::start(|_| Behaviour { gap: Duration::from_millis(50), tokens: Some(8), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = three(&server, clock);
    let mut stop = AfterRequests { count: 3, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
    let manner = DriveManner { timeout: Nanos::from_millis(120), chunks: Chunks::Count };
    let driven = drive(Arrivals { when: closed(3), what: &mut what }, manner, &mut stop, &mut target, &mut clock);
    assert!(stop.records[..3].iter().all(|record| record.ending == Ending::TimedOut), "{:?}", stop.records);
    assert_eq!(driven.not_let_go, 0);
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.stop().requests[..3].iter().all(|request| request.ended == Ended::ClientGone));
}

#[test]
fn a_crash_is_seen_by_all_threads_and_so_is_the_restart() {
    let server =
        OpenAiServer::start(|_| Behaviour { ttft: Duration::from_millis(5), gap: Duration::from_millis(2), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = three(&server, clock);
    assert!(driven(&mut target, &mut clock, 6, 30).iter().all(RequestRecord::completed));
    server.crash();
    let records = driven(&mut target, &mut clock, 6, 12);
    assert!(records.iter().all(|record| !record.completed()));
    assert!(records.iter().any(|record| record.ending == Ending::Failed(FailureKind::Unreachable)));
    assert!(!target.is_alive());
    server.listen_again();
    let mut fresh = three(&server, clock);
    assert!(driven(&mut fresh, &mut clock, 6, 30).iter().all(RequestRecord::completed) && fresh.is_alive());
}

/// Answers at once, with a thread beside it.
struct Helped(Null, ThreadUse);

impl Target for Helped {
    fn identity(&self) -> TargetIdentity {
        self.0.identity()
    }
    fn submit(&mut self, request: Request, slot: Slot) {
        self.0.submit(request, slot);
    }
    fn cancel(&mut self, slot: Slot) {
        self.0.cancel(slot);
    }
    fn next_event(&mut self) -> Option<Event> {
        self.0.next_event()
    }
    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.0.advance(now)
    }
    fn has_events(&self) -> bool {
        self.0.has_events()
    }
    fn client_threads(&self) -> Vec<ThreadUse> {
        vec![self.1.clone()]
    }
}

/// A window of 400 ms at once.
struct AtOnce;

impl Judge for AtOnce {
    fn begins(&mut self, _now: Nanos) {}
    fn warms_up(&mut self, _ended: &Brief) {}
    fn settled(&mut self, _now: Nanos, _pulse: Pulse) -> Settled {
        Settled::Yes { window: Nanos::from_millis(400) }
    }
    fn enough(&mut self, _window: &Window<'_>) -> Enough {
        Enough::Yes
    }
}

#[test]
fn a_thread_that_is_busy_beside_the_generator_counts_as_the_generator() {
    let (used, over) = (ThreadUse::default(), AtomicBool::new(false));
    let watched = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                used.tell();
            }
        });
        let mut clock = Monotonic::start();
        let mut target = Helped(Null::default(), used.clone());
        let (mut judge, mut silent, interrupt) = (AtOnce, Silent, Interrupt::default());
        let mut log = |_| {};
        let mut watch = Watch::new(&mut judge, Nanos::from_millis(50), &interrupt, &mut silent, &mut log).beside(target.client_threads());
        let schedule = Box::new((0..200_u64).map(|index| Nanos::from_millis(index * 5)));
        let when = plimsoll::load::arrivals::When::Open { schedule, cap: 64, on_cap: plimsoll::load::arrivals::OnCap::Wait };
        let mut what = Alike { next: 0, prompt: 20, tokens: 1 };
        drive(Arrivals { when, what: &mut what }, DriveManner::default(), &mut watch, &mut target, &mut clock);
        over.store(true, Ordering::Relaxed);
        watch.finish()
    });
    // On a machine that is busy with other things it lacks a core for what it does not use; either way it is seen.
    let seen = watched.generator_cpu + watched.generator_starved;
    assert!(seen > Nanos::from_millis(300), "{:?} used, {:?} lacked of 400 ms", watched.generator_cpu, watched.generator_starved);
}

#[test]
fn what_the_generator_can_do_is_measured_over_http_and_by_the_length_of_answers() {
    // The best of three: what disturbs it on a busy machine is not the generator.
    let best = |tokens, protocol| (0..3).filter_map(|_| ceiling::over_http(20, tokens, protocol).ok()).fold(0.0, f64::max);
    let alone = Protocol::Http1 { threads: 1 };
    let (short, long) = (best(8, alone), best(400, alone));
    println!("ceiling over HTTP: {short:.0} calls/s with 8 tokens, {long:.0} with 400; without HTTP {:.0}", ceiling::measure());
    assert!(short > 100.0 && short < ceiling::measure(), "{short}");
    assert!(long < 0.5 * short, "{long} calls/s with 400 tokens, {short} with 8");
    assert!(best(8, Protocol::Http1 { threads: 2 }) > 100.0);
    let (short, long) = (best(8, Protocol::Http2), best(400, Protocol::Http2));
    println!("over HTTP/2: {short:.0} calls/s with 8 tokens, {long:.0} with 400");
    assert!(short > 100.0 && long < 0.5 * short, "{short} calls/s with 8 tokens, {long} with 400");
}
