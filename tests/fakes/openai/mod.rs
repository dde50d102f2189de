//! An OpenAI-compatible server that answers as a script says, and keeps the truth of when it wrote what.
//!
//! One thread, one epoll, HTTP/1.1 with keep-alive. The same sources are a module of the tests and a program for benchmarks
//! (`benchmarks/server`). It computes nothing and knows nothing of plimsoll.

mod answer;
mod connection;
mod intake;
mod pages;
mod request;
pub(crate) mod script;
mod serving;
pub(crate) mod truth;
pub(crate) mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use script::{Asked, Behaviour};
use truth::Truth;

/// How each request is answered.
pub(crate) type Script = Box<dyn FnMut(&Asked<'_>) -> Behaviour + Send>;

/// What holds for the whole server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Port on loopback; 0 is any that is free.
    pub(crate) port: u16,
    /// Listens on this socket in the file system instead.
    pub(crate) path: Option<PathBuf>,
    /// The only CPU it may run on.
    pub(crate) cpu: Option<usize>,
    /// The model it says it has.
    pub(crate) model: String,
    /// Tokens of prompt and answer together, as `/v1/models` says.
    pub(crate) max_model_len: u32,
    /// A request beyond so many at once gets 429.
    pub(crate) most_at_once: Option<usize>,
    /// A prompt that was seen before has all its tokens but the last cached, and this TTFT.
    pub(crate) cached_ttft: Option<Duration>,
    /// Keeps every request as it came, in [`truth::RequestTruth::text`].
    pub(crate) keeps_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            path: None,
            cpu: None,
            model: "fake".to_owned(),
            max_model_len: 8192,
            most_at_once: None,
            cached_ttft: None,
            keeps_requests: true,
        }
    }
}

/// What the server is told while it runs.
enum Command {
    /// Send the truth so far.
    Truth(Sender<Truth>),
    /// Stand still until [`Command::Resume`].
    Pause(Sender<()>),
    Resume,
    /// Close the listening socket; connections live on.
    Refuse(Sender<()>),
    /// Close everything at once.
    Crash(Sender<()>),
    /// Listen again, on the same address.
    Listen(Sender<()>),
    Stop,
}

/// A server on a thread of its own. Dropping it stops it.
pub(crate) struct OpenAiServer {
    /// Where it listens, where that is TCP.
    pub(crate) addr: SocketAddr,
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl OpenAiServer {
    /// One that answers every request by `script`, on any free port of loopback.
    pub(crate) fn start(script: impl FnMut(&Asked<'_>) -> Behaviour + Send + 'static) -> Self {
        Self::with(Settings::default(), Box::new(script)).expect("loopback has a free port")
    }

    /// One with settings of its own.
    ///
    /// # Errors
    /// When the address is taken, or the system gives no thread or descriptor.
    pub(crate) fn with(settings: Settings, script: Script) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (commands, inbox) = mpsc::channel();
        let listener = serving::listen(&settings)?;
        let addr = serving::address(&listener).unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let settings = Settings { port: addr.port(), ..settings };
        let server = serving::Server::new(settings, script, listener, inbox, Arc::clone(&wake))?;
        let thread = std::thread::Builder::new().name("fake-openai".to_owned()).spawn(move || server.run())?;
        Ok(Self { addr, commands, wake, thread: Some(thread) })
    }

    /// Such as `http://127.0.0.1:8000`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What happened so far.
    pub(crate) fn truth(&self) -> Truth {
        self.asked(Command::Truth)
    }

    /// It stands still, as a stopped process does, until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.asked(Command::Pause);
    }

    /// It goes on.
    pub(crate) fn resume(&self) {
        self.tell(Command::Resume);
    }

    /// It takes no new connections; those there are live on.
    pub(crate) fn refuse(&self) {
        self.asked(Command::Refuse);
    }

    /// It drops everything at once, as a killed process does.
    pub(crate) fn crash(&self) {
        self.asked(Command::Crash);
    }

    /// After [`Self::refuse`] or [`Self::crash`]: it listens again, on the same port.
    pub(crate) fn listen_again(&self) {
        self.asked(Command::Listen);
    }

    /// It ends; all that happened.
    pub(crate) fn stop(self) -> Truth {
        self.truth()
    }

    fn asked<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> T {
        let (sender, answer) = mpsc::channel();
        self.tell(command(sender));
        answer.recv().expect("the fake server is alive")
    }

    fn tell(&self, command: Command) {
        // A server that is gone has nothing to be told.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for OpenAiServer {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
