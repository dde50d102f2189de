//! Who listens at a local address, by a `/proc` of the test's own and by the machine's.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use plimsoll::http::endpoint::Endpoint;
use plimsoll::node::listener::{self, Listener, NoListener};
use tempfile::TempDir;

/// A process of a made `/proc`: number, parent, sockets that it holds, command line.
type Process<'a> = (u32, u32, &'a [u64], &'a str);

const TCP_HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn tcp(place: usize, address: &str, state: &str, inode: u64) -> String {
    format!(
        "   {place}: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000000000000000 100 0\n"
    )
}

fn proc_with(tables: &[(&str, String)], processes: &[Process<'_>]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let net = root.path().join("proc/net");
    fs::create_dir_all(&net).unwrap();
    for (name, text) in tables {
        fs::write(net.join(name), text).unwrap();
    }
    for (pid, parent, sockets, command) in processes {
        let folder = root.path().join(format!("proc/{pid}"));
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("stat"), format!("{pid} (a) name) S {parent} {pid} 0 0")).unwrap();
        fs::write(folder.join("cmdline"), command.replace(' ', "\0") + "\0").unwrap();
        symlink("/dev/null", folder.join("fd/0")).unwrap();
        for (at, inode) in sockets.iter().enumerate() {
            symlink(format!("socket:[{inode}]"), folder.join(format!("fd/{}", at + 3))).unwrap();
        }
    }
    root
}

fn at(root: &Path, url: &str) -> Result<Listener, NoListener> {
    listener::under(root, &url.parse::<Endpoint>().unwrap())
}

/// A server at 0.0.0.0:8000 whose two workers and one grandchild hold its socket too, a stranger at 127.0.0.2:8000, a shell above all.
fn serving(command: &str) -> TempDir {
    let table = TCP_HEAD.to_owned()
        + &tcp(0, "00000000:1F40", "0A", 501)
        + &tcp(1, "0200007F:1F40", "0A", 777)
        + &tcp(2, "0100007F:1F41", "01", 502)
        + &tcp(3, "0100007F:1F40", "01", 503);
    let processes: &[Process<'_>] = &[
        (1, 0, &[], "init"),
        (90, 1, &[503], "curl http://127.0.0.1:8000"),
        (100, 1, &[], "bash"),
        (110, 100, &[501, 9], command),
        (111, 110, &[501], "worker"),
        (112, 110, &[501], "worker"),
        (5, 112, &[], "engine"),
        (200, 1, &[777], "stranger"),
    ];
    proc_with(&[("tcp", table)], processes)
}

#[test]
fn the_process_that_listens_is_found_with_all_that_comes_from_it() {
    let root = serving("vllm serve");
    let found = at(root.path(), "http://127.0.0.1:8000/v1").unwrap();
    assert_eq!((found.process.pid, found.tree), (110, vec![5, 110, 111, 112]), "not a worker, though it holds the socket");
    assert_eq!(at(root.path(), "http://localhost:8000").unwrap().process.pid, 200, "a socket at loopback goes before one at any address");
    assert_eq!(at(root.path(), "http://127.0.0.2:8000").unwrap().process.pid, 200);
    assert_eq!(listener::tree_under(root.path(), 112), [5, 112]);
    assert!(listener::tree_under(root.path(), 4711).is_empty());
}

#[test]
fn who_is_not_seen_or_is_elsewhere_or_only_passes_on_is_no_server() {
    let root = serving("vllm serve");
    assert_eq!(at(root.path(), "http://127.0.0.1:8001"), Err(NoListener::Unseen), "a connection is no listener");
    assert_eq!(at(root.path(), "http://10.0.0.1:8000"), Err(NoListener::Elsewhere));
    assert_eq!(at(Path::new("/nowhere"), "http://127.0.0.1:8000"), Err(NoListener::Unseen));
    for command in ["/usr/bin/docker-proxy -proto tcp", "ssh -L 8000:gpu:8000 gpu", "nginx: master process"] {
        let forwards = at(serving(command).path(), "http://127.0.0.1:8000");
        assert!(matches!(forwards, Err(NoListener::Forwards { pid: 110, .. })), "{command}: {forwards:?}");
    }
}

#[test]
fn sockets_of_the_sixth_version_and_of_the_file_system_are_understood() {
    let any = format!("{}:1F90", "0".repeat(32));
    let mapped = "0000000000000000FFFF00000100007F:1F91";
    let six = TCP_HEAD.to_owned()
        + &tcp(0, &any, "0A", 61)
        + &tcp(1, "00000000000000000000000001000000:1F92", "0A", 62)
        + &tcp(2, mapped, "0A", 63)
        + "no line at all\n";
    let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 70 /run/server.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 71 /run/server.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 72 @/run/server.sock\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 73\n";
    let processes: &[Process<'_>] = &[(6, 1, &[61], "a"), (7, 1, &[62], "b"), (8, 1, &[63], "c"), (9, 1, &[70], "d"), (10, 1, &[71], "e")];
    let root = proc_with(&[("tcp6", six), ("unix", unix.to_owned())], processes);
    for (url, pid) in [
        ("http://127.0.0.1:8080", 6),
        ("http://[::1]:8080", 6),
        ("http://[::1]:8082", 7),
        ("http://localhost:8082", 7),
        ("http://127.0.0.1:8081", 8),
        ("unix:/run/server.sock", 10),
    ] {
        assert_eq!(at(root.path(), url).map(|found| found.process.pid), Ok(pid), "{url}");
    }
    assert_eq!(at(root.path(), "unix:/run/other.sock"), Err(NoListener::Unseen));
}

fn said(command: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let process = at(serving(command).path(), "http://127.0.0.1:8000").unwrap().process;
    (process.command, process.settings)
}

#[test]
fn the_command_line_says_how_it_serves_and_keeps_its_secrets() {
    let (command, settings) = said(
        "/venv/bin/python3 -m vllm.entrypoints.openai.api_server --model meta/llama --dtype bfloat16 --quantization=fp8 \
         --kv_cache_dtype fp8_e5m2 -tp 4 --max-num-seqs 256 --gpu-memory-utilization 0.9 --enable-prefix-caching --api-key one two \
         --tokenizer meta/llama --max-num-batched-tokens=8192 --hf-token=hf_abc --host 0.0.0.0 --speculative-config {}",
    );
    let text = command.join(" ");
    for secret in [" one", " two", "hf_abc"] {
        assert!(!text.contains(secret), "{text}");
    }
    for kept in
        ["--api-key *** *** --tokenizer meta/llama", "--max-num-batched-tokens=8192", "--hf-token=***", "--model meta/llama --dtype"]
    {
        assert!(text.contains(kept), "`{kept}` is not in {text}");
    }
    let wanted = [
        ("dtype", "bfloat16"),
        ("enable-prefix-caching", "true"),
        ("gpu-memory-utilization", "0.9"),
        ("kv-cache-dtype", "fp8_e5m2"),
        ("max-num-batched-tokens", "8192"),
        ("max-num-seqs", "256"),
        ("quantization", "fp8"),
        ("speculative-config", "{}"),
        ("tp", "4"),
    ];
    assert_eq!(settings, wanted.map(|(flag, value)| (flag.to_owned(), value.to_owned())).into_iter().collect());
    let (command, settings) =
        said("env API_KEY=abc DB=postgres://me:pw@host/x ./llama-server -c 8192 -ngl -1 -np 4 -ctk q8_0 --port 8000 -fa");
    assert_eq!(command[..3], ["env", "API_KEY=***", "***"], "{command:?}");
    assert!(settings.is_empty(), "`env` is not llama.cpp: {settings:?}");
    let (_, settings) = said("./llama-server -c 8192 -ngl -1 -np 4 -ctk q8_0 --port 8000 -fa");
    let text = settings.iter().map(|(flag, value)| format!("{flag}={value}")).collect::<Vec<_>>().join(" ");
    assert_eq!(text, "c=8192 ctk=q8_0 fa=true ngl=-1 np=4");
}

#[test]
fn on_this_machine_a_socket_of_this_process_is_its_own() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let found = at(Path::new("/"), &format!("http://{}", socket.local_addr().unwrap()));
    if let Ok(found) = found {
        assert!(found.tree.contains(&std::process::id()));
    } else {
        println!("skipped: /proc does not tell who holds a socket here");
    }
}
