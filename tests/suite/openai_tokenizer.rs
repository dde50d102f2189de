//! A local tokenizer counts what a server does not, and where both count, who disagrees is counted and not averaged away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::campaign::tally::{self, Brief};
use plimsoll::clock::Monotonic;
use plimsoll::http::client::Client;
use plimsoll::http::endpoint::Address;
use plimsoll::model::tokenizer::Tokenizer;
use plimsoll::record::request::RequestRecord;
use plimsoll::record::server::TokenSource;
use plimsoll::target::openai::Server;
use plimsoll::target::openai::answer::Answer;
use plimsoll::target::openai::ask::{Api, PromptForm};
use plimsoll::target::openai::discover::{Wish, discover};
use plimsoll::target::openai::reactor::OpenAi;
use plimsoll::target::openai::ready::Served;
use plimsoll::target::openai::reckoning::TokensPerEvent;

use crate::openai_target::{SOON, driven, manner, server_at};
use crate::sse::on_the_wire;
use crate::support::openai::OpenAiServer;
use crate::support::openai::script::{Behaviour, Flavour, Usage};
use crate::support::openai::wire;
use crate::support::{plimsoll, stderr};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama-untied")
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::read(&folder()).unwrap())
}

/// Records of answers of this usage, counted by the tokenizer too.
fn against(usage: Usage, api: Api) -> Vec<RequestRecord> {
    let server = OpenAiServer::start(move |_| Behaviour { usage, ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let asked = Server { tokenizer: Some(tokenizer()), ..server_at(&server.url(), Address::Tcp(server.addr), manner(api), SOON) };
    let mut target = OpenAi::new(Arc::new(asked), clock).unwrap();
    driven(&mut target, &mut clock, 2, 8)
}

#[test]
fn a_folder_and_its_file_are_the_same_tokenizer() {
    let (of_folder, of_file) = (tokenizer(), Tokenizer::read(&folder().join("tokenizer.json")).unwrap());
    assert_eq!(of_folder.vocab_size(), of_file.vocab_size());
    assert!(of_folder.vocab_size() > 256);
    let missing = Tokenizer::read(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(missing.contains("tokenizer") && missing.contains("/nowhere"), "{missing}");
}

#[test]
fn an_answer_without_usage_has_the_tokens_of_its_text() {
    for api in [Api::Completions, Api::Chat, Api::Responses] {
        for record in against(Usage::Absent, api) {
            let count = record.token_count.unwrap();
            let tokens = tokenizer().count(&wire::text(count.events)).unwrap();
            assert_eq!((count.output_by_usage, count.output_by_tokenizer), (None, Some(tokens)), "{api:?}");
            assert_eq!(record.output_tokens, tokens);
            assert_eq!(record.chunks.iter().map(|chunk| chunk.tokens).sum::<u32>(), tokens, "shared out among the chunks");
        }
    }
}

#[test]
fn where_both_count_the_server_is_believed_and_the_difference_is_counted() {
    let records = against(Usage::Final, Api::Chat);
    let cohort: Vec<Brief> = records.iter().map(Brief::of).collect();
    let counts = tally::token_counts(&cohort).unwrap();
    let differing =
        records.iter().filter(|record| tokenizer().count(&wire::text(record.requested_tokens)) != Some(record.requested_tokens));
    assert_eq!(counts.tokenizer_disagreeing, differing.count() as u64);
    assert!(counts.tokenizer_disagreeing > 0, "the fake's words are not the tokenizer's");
    assert_eq!((counts.by_tokenizer, counts.with_usage), (0, counts.answers));
    assert!(records.iter().all(|record| record.output_tokens == record.requested_tokens));
    let absent: Vec<Brief> = against(Usage::Absent, Api::Chat).iter().map(Brief::of).collect();
    let counts = tally::token_counts(&absent).unwrap();
    assert_eq!((counts.by_tokenizer, counts.tokenizer_disagreeing), (counts.answers, 0));
}

#[test]
fn the_text_of_recorded_answers_is_read_in_every_dialect() {
    for capture in [
        "llama-server/chat_stream_usage.txt",
        "llama-server/completion_stream_usage.txt",
        "llama-server/chat_once.txt",
        "llama-cpp-python/chat_stream.txt",
        "transformers-serve/chat_stream.txt",
    ] {
        let wire = on_the_wire(capture, 4096);
        let mut answer = Answer::counted_by(Some(tokenizer()));
        wire.chunks(7).for_each(|piece| {
            answer.feed(piece, &TokensPerEvent::default());
        });
        let text = text_of(&String::from_utf8_lossy(&wire));
        assert!(!text.is_empty(), "{capture}");
        assert_eq!(answer.token_count().output_by_tokenizer, tokenizer().count(&text), "{capture}: {text:?}");
    }
}

/// The text of an answer, by what its lines say.
fn text_of(wire: &str) -> String {
    let lines = wire.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let events = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let part = |event: serde_json::Value| {
        let choice = &event["choices"][0];
        [&choice["text"], &choice["delta"]["content"], &choice["message"]["content"]].map(|text| text.as_str().unwrap_or_default()).concat()
    };
    events.map(part).collect()
}

#[test]
fn a_server_without_usage_is_asked_in_words_that_the_tokenizer_counted() {
    let server = OpenAiServer::start(|_| Behaviour::like(Flavour::LlamaCppPython));
    let address = Address::Tcp(server.addr);
    let (endpoint, timeout) = (server.url().parse().unwrap(), Duration::from_secs(5));
    let client = Client { endpoint, tls: None, headers: Vec::new(), timeout, http2: false };
    let served = Served { model: "fake".to_owned(), ..Served::default() };
    let found = |wish: Wish| discover(&client, &address, &served, &wish, 3).unwrap();
    let chat = found(Wish { api: Some(Api::Chat), tokenizer: Some(tokenizer()), ..Wish::default() });
    assert_eq!(chat.token_source, TokenSource::Tokenizer);
    let PromptForm::Words(rate) = chat.manner.prompt else { panic!("a chat takes words") };
    assert!(rate.per_word > 1.0, "a small vocabulary has few whole words: {rate:?}");
    let ids = found(Wish { api: Some(Api::Completions), tokenizer: Some(tokenizer()), ..Wish::default() });
    assert_eq!(ids.manner.prompt, PromptForm::Ids(tokenizer().vocab_size()));
    assert_eq!(found(Wish { api: Some(Api::Chat), ..Wish::default() }).token_source, TokenSource::Events);
}

#[test]
fn bench_names_a_tokenizer_that_is_none() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let data = tempfile::tempdir().unwrap();
    let asked = ["bench", "--quick", "--target", &server.url(), "--tokenizer", "/nowhere", "--data-dir"];
    let output = plimsoll().args(asked).arg(data.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nowhere"), "{}", stderr(&output));
}
