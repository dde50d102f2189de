//! Who listens at a local address: the process, its descendants, and what its command line says of how it serves.
//!
//! From `/proc` alone, and so only what this user may see there. A process that merely passes connections on (a container's proxy, an SSH
//! tunnel) is not the server, and is said to be none.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::http::endpoint::Endpoint;
use crate::node::command;
use crate::record::server::ServerProcess;

/// State of a TCP socket that listens, as the kernel writes it.
const LISTENS: &str = "0A";
/// Flag of a unix socket that listens.
const ACCEPTS: u32 = 0x0001_0000;
/// Programs that pass connections on to where the server is.
const FORWARDERS: [&str; 11] =
    ["docker-proxy", "rootlessport", "slirp4netns", "ssh", "sshd", "kubectl", "nginx", "envoy", "haproxy", "traefik", "socat"];

/// The process behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is.
    pub process: ServerProcess,
    /// It and all its descendants, by number.
    pub tree: Vec<u32>,
}

/// Why the process is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoListener {
    /// The address is not of this machine.
    #[error("it is not on this machine")]
    Elsewhere,
    /// Nobody is seen to listen there.
    #[error("no process that this user may look at listens there")]
    Unseen,
    /// Who listens serves nothing itself.
    #[error("`{name}` (process {pid}) listens there and passes connections on")]
    Forwards {
        /// Its program.
        name: String,
        /// Its number.
        pid: u32,
    },
}

/// Who listens at `endpoint`, by the files under `root`: `/`, or a test's own.
///
/// # Errors
/// When that is not to be seen from here.
pub fn under(root: &Path, endpoint: &Endpoint) -> Result<Listener, NoListener> {
    if !endpoint.is_local() {
        return Err(NoListener::Elsewhere);
    }
    let inodes = match &endpoint.socket {
        Some(path) => unix_inodes(&read(root, "proc/net/unix"), path),
        None => tcp_inodes(&read(root, "proc/net/tcp"), &read(root, "proc/net/tcp6"), endpoint),
    };
    let parents = parents(root);
    let holders = parents.keys().copied().filter(|pid| holds(root, *pid, &inodes)).collect::<Vec<_>>();
    // Processes that were forked with the socket open hold it too: the server is the one that is above them.
    let is_below = |pid: &u32| holders.iter().any(|other| other != pid && descends(&parents, *pid, *other));
    let pid = holders.iter().copied().find(|pid| !is_below(pid)).ok_or(NoListener::Unseen)?;
    let words = command_line(root, pid);
    let name = words.first().map_or("", |word| command::program(word));
    if FORWARDERS.contains(&name) {
        return Err(NoListener::Forwards { name: name.to_owned(), pid });
    }
    let process = ServerProcess { pid, settings: command::settings(&words), command: command::without_secrets(&words) };
    Ok(Listener { process, tree: below(&parents, pid) })
}

/// A process and all its descendants as they are now; empty where it is gone.
#[must_use]
pub fn tree_under(root: &Path, pid: u32) -> Vec<u32> {
    below(&parents(root), pid)
}

fn below(parents: &BTreeMap<u32, u32>, ancestor: u32) -> Vec<u32> {
    parents.keys().copied().filter(|pid| descends(parents, *pid, ancestor)).collect()
}

/// Sockets that listen at the port: those at the very address, else those at any address of the machine.
fn tcp_inodes(tcp: &str, tcp6: &str, endpoint: &Endpoint) -> Vec<u64> {
    let wanted = endpoint.host.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    let listening = tcp.lines().chain(tcp6.lines()).filter_map(|line| {
        let fields = line.split_whitespace().collect::<Vec<_>>();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let at_port = u16::from_str_radix(port, 16).ok()? == endpoint.port && *fields.get(3)? == LISTENS;
        Some((address_of(address)?, fields.get(9)?.parse::<u64>().ok()?)).filter(|_| at_port)
    });
    let listening = listening.collect::<Vec<_>>();
    let exact = |address: IpAddr| wanted.map_or(address.is_loopback(), |wanted| wanted == address);
    let of = |fits: &dyn Fn(IpAddr) -> bool| listening.iter().filter(|(at, _)| fits(*at)).map(|(_, inode)| *inode).collect::<Vec<_>>();
    let found = of(&exact);
    if found.is_empty() { of(&|address| address.is_unspecified()) } else { found }
}

/// `0100007F`, or four such words: each is a number as this machine keeps it.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// `Num: RefCount Protocol Flags Type St Inode Path`.
fn unix_inodes(unix: &str, path: &Path) -> Vec<u64> {
    let listening = unix.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
        let accepts = u32::from_str_radix(flags, 16).ok()? & ACCEPTS != 0;
        let bound = fields.collect::<Vec<_>>().join(" ");
        inode.parse::<u64>().ok().filter(|_| accepts && Path::new(&bound) == path)
    });
    listening.collect()
}

fn holds(root: &Path, pid: u32, inodes: &[u64]) -> bool {
    let files = fs::read_dir(root.join(format!("proc/{pid}/fd"))).into_iter().flatten().flatten();
    let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
    !inodes.is_empty()
        && links.any(|link| {
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
}

/// Every process with its parent.
fn parents(root: &Path) -> BTreeMap<u32, u32> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| {
        let stat = read(root, &format!("proc/{pid}/stat"));
        // `pid (name) state parent ...`, and a name may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        (pid, parent.unwrap_or(0))
    };
    pids.map(parent).collect()
}

/// Whether `pid` is `ancestor` or comes from it.
fn descends(parents: &BTreeMap<u32, u32>, pid: u32, ancestor: u32) -> bool {
    let above = std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|parent| *parent > 0));
    // A number that came free while the table was read could close a circle.
    above.take(parents.len() + 1).any(|pid| pid == ancestor)
}

fn command_line(root: &Path, pid: u32) -> Vec<String> {
    let text = fs::read(root.join(format!("proc/{pid}/cmdline"))).unwrap_or_default();
    let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn read(root: &Path, path: &str) -> String {
    crate::node::read(root, path).unwrap_or_default()
}
