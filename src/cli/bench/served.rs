//! What stands behind a server: its process and its GPUs where it runs on this node, and its own counters.

use std::path::Path;

use anyhow::Context;

use crate::campaign::interrupt::Interrupt;
use crate::campaign::servers::Reached;
use crate::cli::bench::args::BenchArgs;
use crate::cli::bench::server::{self, ServerArgs};
use crate::cli::exit::{Exit, ExitWith};
use crate::http::client::Client;
use crate::http::endpoint::Endpoint;
use crate::node::listener;
use crate::node::telemetry::NoTelemetry;
use crate::record::finding::{Finding, Severity};
use crate::record::telemetry::GpuProcess;
use crate::telemetry::counters::ServerCounters;
use crate::telemetry::kv_capacity;
use crate::telemetry::nvml::Library;
use crate::telemetry::scrape::{METRICS, PATIENCE, Page};
use crate::telemetry::select::Selected;

/// A server that answers, with what is behind it.
pub(super) struct Served {
    pub(super) reached: Reached,
    /// Where its counters are read.
    pub(super) page: Option<Page>,
    pub(super) gpus: ServerGpus,
}

/// The GPUs of a server, as far as this node tells.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerGpus {
    /// Those that its processes compute on.
    pub(super) found: Vec<Selected>,
    /// How many it was said to have.
    pub(super) stated: Option<u32>,
    /// The process that listens, where it is seen.
    pub(super) pid: Option<u32>,
    /// It and its descendants.
    pub(super) tree: Vec<u32>,
    /// Whether its address is of this node.
    pub(super) is_local: bool,
}

impl ServerGpus {
    /// Whether a process is one of the server's.
    pub(super) fn owns(&self, process: &GpuProcess) -> bool {
        // A server may have started further processes meanwhile.
        let comes_from = |own| listener::tree_under(Path::new("/"), own).contains(&process.pid);
        self.tree.contains(&process.pid) || self.pid.is_some_and(comes_from)
    }

    /// Whether what computes on GPUs that are watched by wish is taken for the server's: in a container the driver counts processes as the
    /// host does, and none can be told to be its.
    pub(super) fn takes_all(&self) -> bool {
        self.found.is_empty() && self.is_local && self.stated.is_some()
    }

    /// What was said and what is seen, where they differ.
    pub(super) fn contradiction(&self) -> Option<Finding> {
        let found = self.found.len();
        let stated = self.stated.filter(|stated| found > 0 && *stated as usize != found)?;
        Some(Finding::new(
            "gpus_disagree",
            Severity::Warning,
            format!(
                "`--gpus {stated}` was given, and the server's processes compute on {found} GPUs of this node: figures per GPU are divided by {stated}"
            ),
            "leave `--gpus` out to divide by what is seen, unless the server has GPUs on other nodes too",
        ))
    }
}

/// Reaches the server at `endpoint` and looks behind it.
///
/// # Errors
/// When it does not serve, or counters that were asked for cannot be read.
pub(super) fn reach(
    args: &BenchArgs,
    endpoint: &Endpoint,
    seed: u64,
    library: &Result<Library, NoTelemetry>,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(String),
) -> anyhow::Result<Served> {
    let client = server::client(&args.server, endpoint)?;
    let mut reached = server::connect(args, client.clone(), seed, interrupt, tell)?;
    let (page, kv_tokens) = page(&args.server, client)?.unzip();
    reached.kv_tokens = kv_tokens.flatten();
    reached.metrics = page.as_ref().map(Page::url);
    let mut gpus = ServerGpus { stated: args.server.gpus, is_local: endpoint.is_local(), ..ServerGpus::default() };
    match listener::under(Path::new("/"), endpoint) {
        Ok(listener) => {
            gpus.pid = Some(listener.process.pid);
            gpus.tree = listener.tree;
            reached.process = Some(listener.process);
        }
        Err(unknown) if gpus.is_local => tell(format!("the server's process is not known: {unknown}")),
        Err(_) => {}
    }
    if let (Some(_), Ok(library)) = (gpus.pid, library) {
        let computing = library.computing().unwrap_or_default().into_iter();
        gpus.found = computing.filter(|(_, processes)| processes.iter().any(|process| gpus.owns(process))).map(|(gpu, _)| gpu).collect();
    }
    reached.gpus_found = gpus.found.len() as u32;
    Ok(Served { reached, page, gpus })
}

/// Where the server's counters are read: where it was said, which must then answer, or where servers usually have them. With the tokens
/// that its KV cache holds, where it says so.
fn page(args: &ServerArgs, client: Client) -> anyhow::Result<Option<(Page, Option<u64>)>> {
    if args.no_metrics {
        return Ok(None);
    }
    let Some(url) = &args.metrics_url else {
        let page = Page { client: Client { timeout: PATIENCE, ..client }, path: METRICS.to_owned() };
        let answer = page.get().ok().filter(|text| ServerCounters::read(text).says_something());
        return Ok(answer.map(|text| (page, kv_capacity::tokens(&text))));
    };
    let page = page_at(args, url, Some(&client))?;
    let what = || format!("cannot read the server's counters from {}. Check `--metrics-url`, or leave it out", page.url());
    let text = page.get().with_context(what).exit_with(Exit::Unavailable)?;
    if !ServerCounters::read(&text).says_something() {
        return Err(anyhow::anyhow!("none of the counters at {} is one of a server that is known", page.url()))
            .exit_with(Exit::Unavailable);
    }
    let kv_tokens = kv_capacity::tokens(&text);
    Ok(Some((page, kv_tokens)))
}

/// The page at a URL. The server's key goes to the server alone, and so does what is spoken with it.
pub(super) fn page_at(args: &ServerArgs, url: &Endpoint, server: Option<&Client>) -> anyhow::Result<Page> {
    let place = |endpoint: &Endpoint| (endpoint.tls, endpoint.host.clone(), endpoint.port, endpoint.socket.clone());
    let path = if url.prefix.is_empty() { METRICS } else { "" };
    let client = match server.filter(|server| place(&server.endpoint) == place(url)) {
        Some(server) => Client { endpoint: url.clone(), timeout: PATIENCE, ..server.clone() },
        None => {
            let tls = server::tls(args, url, "http/1.1")?;
            Client { endpoint: url.clone(), tls, headers: Vec::new(), timeout: PATIENCE, http2: false }
        }
    };
    Ok(Page { client, path: path.to_owned() })
}
