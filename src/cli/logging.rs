//! Notes for people on standard error, through `tracing`. Results never go this way.

use std::io;

use tracing_subscriber::filter::LevelFilter;

/// Starts logging at a level of detail: 0 warnings, 1 notes, 2 debugging, 3 everything; below 0 errors only.
pub(super) fn start(detail: i16) {
    let level = match detail {
        ..0 => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(detail >= 2)
        .with_ansi(anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never)
        .with_writer(io::stderr)
        // A closed standard error leaves nobody to tell, and is no reason to end a run.
        .log_internal_errors(false)
        .finish();
    // A second call (tests in one process) keeps the first subscriber.
    drop(tracing::subscriber::set_global_default(subscriber));
}
