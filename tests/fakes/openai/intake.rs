//! What becomes of a request that was read: a page at once, or an answer that takes its time.

use std::io::Write;

use super::answer::{Answer, Then};
use super::pages::{self, Page};
use super::request::{self, Frame};
use super::script::{Asked, Behaviour, Endpoint};
use super::serving::Server;
use super::truth::{Ended, RequestTruth, now};
use super::wire;

impl Server {
    /// Takes the next whole request of a connection, if there is one.
    pub(super) fn take_request(&mut self, index: usize) -> bool {
        let Some(connection) = self.connections[index].as_mut() else { return false };
        if connection.input.is_empty() {
            return false;
        }
        let frame = match request::frame(&connection.input) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(()) => {
                self.close(index, Ended::Closed);
                return false;
            }
        };
        let read_at = now();
        // Taken out for as long as it is looked at.
        let mut input = std::mem::take(&mut connection.input);
        self.answer(index, &input[..frame.whole], frame, read_at);
        input.drain(..frame.whole);
        if let Some(connection) = self.connections[index].as_mut() {
            connection.input = input;
        }
        true
    }

    fn answer(&mut self, index: usize, bytes: &[u8], frame: Frame, read_at: u64) {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_at_checked(frame.head).unwrap_or((&text, ""));
        let head = head.trim_end();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let endpoint = match (method, path.split('?').next().unwrap_or_default()) {
            ("POST", "/v1/completions") => Endpoint::Completions,
            ("POST", "/v1/chat/completions") => Endpoint::Chat,
            ("POST", "/v1/responses") => Endpoint::Responses,
            (_, path) => {
                self.truth.others.push((read_at, format!("{method} {path}")));
                let page = self.page(method, path);
                return self.write_page(index, &page, frame.close);
            }
        };
        match serde_json::from_str::<request::Body<'_>>(body) {
            Ok(parsed) => self.tokens(index, endpoint, (head, body), &parsed, (read_at, frame.close)),
            Err(error) => {
                self.truth.others.push((read_at, format!("{method} {path}: {error}")));
                let page = (400, "application/json", wire::error_object(400).into_bytes());
                self.write_page(index, &page, frame.close);
            }
        }
    }

    /// A request for tokens gets its script, its record and its answer.
    fn tokens(
        &mut self,
        index: usize,
        endpoint: Endpoint,
        (head, body): (&str, &str),
        parsed: &request::Body<'_>,
        (read_at, closes): (u64, bool),
    ) {
        let record = self.truth.requests.len();
        let Some(connection) = self.connections[index].as_mut() else { return };
        let options = parsed.stream_options.as_ref();
        let asked = Asked {
            index: record as u64,
            connection: connection.number,
            endpoint,
            head,
            body,
            request_id: request::header(head, "x-request-id"),
            model: &parsed.model,
            prompt_tokens: parsed.prompt.tokens,
            prompt_digest: parsed.prompt.digest,
            max_tokens: parsed.most_tokens(),
            min_tokens: parsed.min_tokens,
            stream: parsed.stream,
            include_usage: options.is_some_and(|options| options.include_usage),
            continuous_usage: options.is_some_and(|options| options.continuous_usage_stats),
            ignore_eos: parsed.ignore_eos,
        };
        let is_full = self.settings.most_at_once.is_some_and(|most| self.totals.running >= most);
        let mut behaviour = if is_full { Behaviour::refusal(429, Some(1)) } else { (self.script)(&asked) };
        if let Some(ttft) = self.settings.cached_ttft.filter(|_| behaviour.status == 200) {
            let is_known = !self.seen_prompts.insert(asked.prompt_digest);
            let cached = if is_known { asked.prompt_tokens.saturating_sub(1) } else { 0 };
            behaviour.ttft = if is_known { ttft } else { behaviour.ttft };
            behaviour.cached_tokens.get_or_insert(cached);
        }
        let cached_tokens = behaviour.cached_tokens.unwrap_or(0);
        self.totals.running += 1;
        self.totals.prompt_tokens += u64::from(asked.prompt_tokens);
        self.totals.prefix_queries += u64::from(asked.prompt_tokens);
        self.totals.prefix_hits += u64::from(cached_tokens);
        let keeps = self.settings.keeps_requests;
        self.truth.requests.push(RequestTruth {
            index: asked.index,
            connection: connection.number,
            id: asked.request_id.map(str::to_owned),
            path: match endpoint {
                Endpoint::Completions => "/v1/completions",
                Endpoint::Chat => "/v1/chat/completions",
                Endpoint::Responses => "/v1/responses",
            },
            status: behaviour.status,
            prompt_tokens: asked.prompt_tokens,
            cached_tokens,
            accepted_at: connection.accepted_at,
            read_at,
            head_at: 0,
            writes: Vec::with_capacity(asked.max_tokens.unwrap_or(0).min(256) as usize),
            end_at: 0,
            ended: Ended::Open,
            text: if keeps { format!("{head}\r\n\r\n{body}") } else { String::new() },
        });
        connection.answer = Some(Answer::new(&asked, behaviour, record, read_at, closes));
    }

    fn page(&mut self, method: &str, path: &str) -> Page {
        match (method, path) {
            ("GET", "/v1/models") => pages::models(&self.settings.model, self.settings.max_model_len),
            ("GET", "/health") => pages::fine(),
            ("GET", "/version") => pages::version(),
            ("GET", "/metrics") => pages::metrics(&self.totals, &self.settings.model, self.settings.most_at_once.unwrap_or(256)),
            ("GET", "/truth") => pages::truth(self.truth.json_lines()),
            ("POST", "/reset_prefix_cache") => {
                self.seen_prompts.clear();
                pages::fine()
            }
            _ => pages::missing(),
        }
    }

    fn write_page(&mut self, index: usize, (status, kind, body): &Page, closes: bool) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        let close = if closes { "connection: close\r\n" } else { "" };
        let length = body.len();
        write!(connection.output, "HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{close}\r\n")
            .expect("a vector takes it");
        connection.output.extend_from_slice(body);
        connection.then = Then::Whole { keeps: !closes };
    }
}
