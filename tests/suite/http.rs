//! Addresses, heads and bodies of HTTP are read as they are meant, wherever they were cut.

use plimsoll::http::body::Body;
use plimsoll::http::endpoint::Endpoint;
use plimsoll::http::head::{Framing, Head};
use proptest::prelude::*;

#[test]
fn servers_are_named_as_people_write_them() {
    let shown =
        |text: &str| text.parse::<Endpoint>().map(|endpoint| (endpoint.to_string(), endpoint.authority(), endpoint.path("/v1/models")));
    let is = |text: &str, url: &str, authority: &str, path: &str| {
        assert_eq!(shown(text).unwrap(), (url.to_owned(), authority.to_owned(), path.to_owned()), "{text}");
    };
    is("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8000", "/v1/models");
    is("http://node7:8000/v1/", "http://node7:8000", "node7:8000", "/v1/models");
    is("https://host/deep/v1", "https://host/deep", "host", "/deep/v1/models");
    is("http://[::1]:80", "http://[::1]", "[::1]", "/v1/models");
    is("unix:/run/server.sock", "unix:/run/server.sock", "localhost", "/v1/models");
    for bad in ["localhost:8000", "ftp://x", "http://", "http://a:b", "http://a:0", "http://u:p@h", "http://h/v1?x", "unix:relative"] {
        let error = shown(bad).unwrap_err().to_string();
        assert!(error.contains("Write it like http://"), "{error}");
    }
    assert!("http://localhost:1".parse::<Endpoint>().unwrap().is_local());
    assert!(!"http://example.com".parse::<Endpoint>().unwrap().is_local());
}

#[test]
fn heads_tell_how_their_body_ends() {
    let read = |text: &str| Head::read(text.as_bytes()).map(|read| read.map(|(head, length)| (head, length == text.len())));
    let (head, whole) =
        read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n").unwrap().unwrap();
    assert!(whole && head.event_stream && head.keep_alive && head.framing == Framing::Chunked);
    let (head, _) = read("HTTP/1.1 429 No\r\nContent-Length: 5\r\nRetry-After: 7\r\nConnection: close\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.status, head.framing, head.keep_alive, head.retry_after.unwrap().as_secs()), (429, Framing::Length(5), false, 7));
    let (head, _) = read("HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.framing, head.keep_alive), (Framing::UntilClose, false));
    let (head, _) = read("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.status, head.framing), (204, Framing::Length(0)));
    assert!(read("HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none(), "not whole yet");
    assert!(read("SSH-2.0-OpenSSH_9\r\n").is_err());
    assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n").is_err());
    assert!(read("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n").is_err());
    assert!(Head::read(&[b"HTTP/1.1 200 OK\r\nX: ", &vec![b'a'; 70_000][..]].concat()).is_err(), "a head without an end");
}

#[test]
fn broken_chunks_are_told() {
    for wire in ["zz\r\n", "5\r\nhelloX", "ffffffffffffffffff\r\n", "-1\r\n"] {
        let (mut body, mut rest) = (Body::framed(Framing::Chunked), wire.as_bytes());
        let outcome = loop {
            match body.next(&mut rest) {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(outcome.is_err(), "{wire:?}");
    }
}

proptest! {
    #[test]
    fn chunks_come_out_as_they_went_in(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6), cut in 1_usize..20) {
        let mut wire = Vec::new();
        for piece in &pieces {
            wire.extend_from_slice(format!("{:X};name=value\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nTrailer: x\r\n\r\nNEXT");
        let (mut body, mut got, mut left) = (Body::framed(Framing::Chunked), Vec::new(), Vec::new());
        for piece in wire.chunks(cut) {
            let mut rest = piece;
            while let Some(data) = body.next(&mut rest).unwrap() {
                got.extend_from_slice(data);
            }
            left.extend_from_slice(rest);
        }
        prop_assert!(body.is_done());
        prop_assert_eq!(got, pieces.concat());
        prop_assert_eq!(left, b"NEXT");
    }
}
