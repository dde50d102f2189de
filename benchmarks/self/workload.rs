//! What traffic costs before it is sent: an arrival, a request, a row of a trace.
//!
//! Run with `cargo bench --bench workload`. Figures are thread CPU time, so that neighbours on the machine count
//! for little; the promise is under 30 ns an arrival of a Poisson schedule.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;

use plimsoll::clock::thread_cpu;
use plimsoll::table::read::Table;
use plimsoll::table::source::Source;
use plimsoll::workload::arrivals::ArrivalProcess;
use plimsoll::workload::fit::Limits;
use plimsoll::workload::spec::Workload;
use plimsoll::workload::trace::options::TraceOptions;
use plimsoll::workload::trace::survey::Trace;

const LIMITS: Limits = Limits { max_context: 131_072, vocab_size: 32_000 };

/// Nanoseconds of CPU time an item.
fn per_item(items: usize, run: impl FnOnce()) -> f64 {
    let began = thread_cpu();
    run();
    thread_cpu().since(began).0 as f64 / items as f64
}

fn main() {
    let count = 5_000_000;
    println!("one arrival (goal under 30 ns for poisson)");
    for name in ["constant", "poisson", "gamma:0.5"] {
        let process: ArrivalProcess = name.parse().expect("a process");
        let schedule = process.schedule(1_000.0, 1);
        println!("  {name:<10} {:>6.1} ns", per_item(count, || schedule.take(count).for_each(|at| _ = black_box(at))));
    }

    let count = 500_000;
    println!("one request, each ended at once");
    for name in Workload::preset_names() {
        let mut source = Workload::preset(name).and_then(|workload| workload.source(1, LIMITS)).expect("a preset fits");
        let cost = per_item(count, || {
            for _ in 0..count {
                let request = source.next_request().expect("a workload is endless");
                source.ended(black_box(request).id);
            }
        });
        println!("  {name:<14} {cost:>6.1} ns");
    }

    let count = 1_000_000;
    let mut rows = "arrival_s,input_tokens,output_tokens\n".to_owned();
    (0..count).for_each(|at| writeln!(rows, "{at}.250,1155,211").expect("memory"));
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(rows.as_bytes()).expect("room in the temporary directory");
    let source = Source::Path(file.path().to_owned());
    println!("one row of a plain CSV trace");
    let mut trace = None;
    let cost = per_item(count, || trace = Trace::survey(move || Table::open(&source), TraceOptions::default()).ok());
    println!("  surveyed       {cost:>6.1} ns");
    let mut requests = trace.expect("a good trace").source(1, 0, LIMITS).expect("a good trace");
    let cost = per_item(count, || while black_box(requests.next_request()).is_some() {});
    println!("  as a request   {cost:>6.1} ns");
}
