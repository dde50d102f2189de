//! `plimsoll serve-model`: the built-in engine as an OpenAI-compatible endpoint.
//!
//! It measures nothing; whoever wants to knows the endpoint's address.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::campaign::interrupt::Signal;
use crate::cli::device::DeviceArgs;
use crate::cli::engine_args::EngineArgs;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::signals::{self, Stops};
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::cli::{ceilings, loading};
use crate::engine::loading::{LoadedModel, ShapeWish};
use crate::model::tokenizer::Tokenizer;
use crate::serve::service::{Served, Service};
use crate::serve::{self, Reserved};

/// Threads that speak HTTP, beside the engine's own and the device's.
const HTTP_THREADS: usize = 2;

/// Arguments of `serve-model`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll serve-model --model llama-5m --port 8000\n  \
                        plimsoll serve-model --model ./checkpoint --device cuda:0 --host 0.0.0.0 --api-key-file key")]
pub struct ServeModelArgs {
    /// Folder of a Hugging Face checkpoint, or a preset's name for random weights
    #[arg(long, value_name = "DIR|PRESET")]
    model: String,
    /// Address to listen on
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 is any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// File whose first line clients must send as their key [default: none needed]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Name that clients ask for [default: the folder's or the preset's]
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,
    /// Requests that may wait to be scheduled; more are turned away with 429 [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_waiting: Option<u32>,
    /// Of a preset's random weights
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Threads that compute [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Device")]
    threads: Option<u16>,
    /// KV blocks [default: by the memory there is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Device")]
    kv_blocks: Option<u32>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the address is taken, or the model or the device is not in order or fails.
pub fn run(args: &ServeModelArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    out.format_among(&[Format::Text])?;
    let api_key = args.api_key()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(HTTP_THREADS).thread_name("http").enable_all().build();
    let runtime = runtime.context("cannot start the threads that speak HTTP").exit_with(Exit::Unavailable)?;
    let _inside = runtime.enter();
    // Taken before the model is loaded, which may take minutes.
    let reserved = Reserved::take(args.address()?)?;
    let source = args.engine.open(&args.model, args.seed)?;
    let tokenizer = if Path::new(&args.model).is_dir() { Tokenizer::open(Path::new(&args.model), source.config.vocab_size)? } else { None };
    let model = args.load(out.progress())?;
    let served = Served {
        name: args.served_name.clone().unwrap_or_else(|| model.name.clone()),
        device: model.device.label(),
        precision: model.precision(),
        labels: model.labels(),
        tokenizer,
        end_ids: model.config.eos_token_ids.clone(),
        api_key,
        max_waiting: args.max_waiting.map(|most| most as usize),
    };
    let said = format!(
        "serving `{}` ({}, {}; {}) at http://{}/v1",
        served.name,
        served.device,
        served.precision,
        served.labels.join("; "),
        reserved.address()
    );
    let service = Service::start(model.engine().context("cannot make an engine")?, served)?;
    let listener = reserved.listen()?;
    let mut stops = Stops::watch()?;
    let (tell_stop, told_stop) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let first = stops.next().await;
        terminal::note("stopping: requests in flight may end within 10 s. A second signal ends at once");
        // A server that has ended by itself is not told.
        let _ = tell_stop.send(first);
        signals::end_now(stops.next().await);
    });
    let mut asked = Signal::Terminate;
    let stop = async {
        if let Ok(signal) = told_stop.await {
            asked = signal;
        }
    };
    if out.progress() != Progress::Silent {
        terminal::note(said);
    }
    runtime.block_on(serve::serve(listener, service, stop))?;
    Ok(asked.into())
}

impl ServeModelArgs {
    fn address(&self) -> anyhow::Result<SocketAddr> {
        let unknown = || format!("`--host {}` is no address of this machine. Give one such as 127.0.0.1 or 0.0.0.0", self.host);
        let found = (self.host.as_str(), self.port).to_socket_addrs().with_context(unknown).exit_with(Exit::Usage)?.next();
        found.with_context(unknown).exit_with(Exit::Usage)
    }

    /// The key clients must send.
    fn api_key(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.api_key_file else { return Ok(None) };
        let unread = || format!("cannot read the key in `{}`. Give a file with the key as its first line", file.display());
        let text = std::fs::read_to_string(file).with_context(unread).exit_with(Exit::BadInput)?;
        let key = text.lines().next().map(str::trim).filter(|key| !key.is_empty());
        Ok(Some(key.with_context(unread).exit_with(Exit::BadInput)?.to_owned()))
    }

    fn load(&self, progress: Progress) -> anyhow::Result<LoadedModel> {
        let device = self.device.choose(self.engine.arithmetic, ceilings::threads(self.threads))?.only()?;
        let wish = ShapeWish { num_kv_blocks: self.kv_blocks, ..self.engine.wish(device.is_cpu()) };
        let open = || self.engine.open(&self.model, self.seed);
        let loaded = device.load(self.device.libraries(), open, &wish, &mut loading::shown(progress)).context("cannot load the model")?;
        Ok(loaded.into_iter().next().expect("a device holds a model"))
    }
}
