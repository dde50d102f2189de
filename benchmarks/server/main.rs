//! The scripted server of the tests as a program, for benchmarks of clients: `cargo run --release --example paced_server -- --help`.
//!
//! Every request is answered alike. The truth of what was written when goes to a file at SIGTERM or SIGINT, and to
//! `GET /truth` at any time.

#![expect(clippy::print_stderr, reason = "a program says where it listens")]

#[path = "../../tests/fakes/openai/mod.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod openai;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use openai::script::{Behaviour, Flavour};
use openai::{OpenAiServer, Settings};

/// Serves OpenAI-compatible streams at a pace, and keeps the truth of it.
#[derive(Debug, Parser)]
struct Args {
    /// Port on loopback; 0 is any
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Listens on this socket in the file system instead
    #[arg(long)]
    unix: Option<PathBuf>,
    /// The only CPU it runs on
    #[arg(long)]
    cpu: Option<usize>,
    /// Milliseconds from a request to its first token
    #[arg(long, default_value_t = 0.0)]
    ttft_ms: f64,
    /// Milliseconds from one event to the next
    #[arg(long, default_value_t = 0.0)]
    gap_ms: f64,
    /// Tokens in an event
    #[arg(long, default_value_t = 1)]
    tokens_per_event: u32,
    /// Events in a write
    #[arg(long, default_value_t = 1)]
    events_per_write: u32,
    /// Tokens of every answer [default: as asked for]
    #[arg(long)]
    tokens: Option<u32>,
    /// Whose events are imitated
    #[arg(long, value_enum, default_value_t = Like::Vllm)]
    like: Like,
    /// Requests at once; 429 beyond
    #[arg(long)]
    most_at_once: Option<usize>,
    /// TTFT in milliseconds of a prompt that was seen before; without it there is no prefix cache
    #[arg(long)]
    cached_ttft_ms: Option<f64>,
    /// File that the truth is written to at the end, one JSON object a request
    #[arg(long)]
    truth: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Like {
    Vllm,
    LlamaServer,
    LlamaCppPython,
    Transformers,
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis.max(0.0) / 1e3)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let flavour = match args.like {
        Like::Vllm => Flavour::Vllm,
        Like::LlamaServer => Flavour::LlamaServer,
        Like::LlamaCppPython => Flavour::LlamaCppPython,
        Like::Transformers => Flavour::Transformers,
    };
    let behaviour = Behaviour {
        ttft: millis(args.ttft_ms),
        gap: millis(args.gap_ms),
        tokens: args.tokens,
        tokens_per_event: args.tokens_per_event,
        events_per_write: args.events_per_write,
        ..Behaviour::like(flavour)
    };
    let settings = Settings {
        port: args.port,
        path: args.unix,
        cpu: args.cpu,
        most_at_once: args.most_at_once,
        cached_ttft: args.cached_ttft_ms.map(millis),
        keeps_requests: false,
        ..Settings::default()
    };
    let server = OpenAiServer::with(settings, Box::new(move |_| behaviour.clone()))?;
    eprintln!("listening on {}", server.url());
    let mut terminations = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminations.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let truth = server.stop();
    if let Some(file) = args.truth {
        File::create(file)?.write_all(&truth.json_lines())?;
    }
    Ok(())
}
