//! The capacity model's queries for a warehouse, corrected: where logs outgrow one machine they are counted where they lie.
//!
//! Quantiles are found by rank and not by `PERCENTILE_CONT`, which half of the dialects lack or only approximate; so minutes
//! without a request count too, without a calendar to join. Every dialect gives the same numbers as the built-in pass. What is
//! divided by is written `60e0`, a float everywhere: a decimal would be divided to one decimal place by Trino, and rounded.

pub mod dialect;

use std::collections::BTreeMap;

use crate::capacity::request_log::columns::Role;
use crate::capacity::request_log::sql::dialect::Dialect;

/// Names of columns where nothing else is told.
const USUAL: [(Role, &str); 8] = [
    (Role::Time, "created_at"),
    (Role::Request, "visible_request_id"),
    (Role::Call, "call_id"),
    (Role::Status, "status"),
    (Role::InputTokens, "input_tokens"),
    (Role::OutputTokens, "output_tokens"),
    (Role::Latency, "latency_ms"),
    (Role::Concurrent, "concurrent_sessions"),
];

/// A query with the name that its result is saved under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What it answers: `hours`, `rates`, `totals`, `lengths`, `load`, `recompute`.
    pub name: &'static str,
    /// In one sentence.
    pub answers: &'static str,
    /// The statement, without a semicolon.
    pub text: String,
}

/// What a table is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTable {
    /// Its name, as the dialect writes it.
    pub name: String,
    /// Columns that are named otherwise than usual; one that is empty is not there.
    pub columns: BTreeMap<Role, String>,
    /// Where concurrency is parted.
    pub load_edges: Vec<u32>,
}

impl LogTable {
    fn column(&self, role: Role) -> Option<&str> {
        let usual = USUAL.iter().find(|(usual, _)| *usual == role).map(|(_, name)| *name);
        self.columns.get(&role).map(String::as_str).or(usual).filter(|name| !name.is_empty())
    }
}

/// Every query that the table's columns allow.
#[must_use]
pub fn queries(table: &LogTable, dialect: Dialect) -> Vec<Query> {
    let mut queries: Vec<Query> = TEMPLATES
        .iter()
        .filter(|(_, _, needs, _)| needs.iter().all(|role| table.column(*role).is_some()))
        .map(|(name, answers, _, template)| Query { name, answers, text: filled(template, table, dialect) })
        .collect();
    let lengths: Vec<String> = LENGTHS
        .iter()
        .filter(|(_, role, _)| table.column(*role).is_some())
        .map(|(of_what, role, only)| {
            let value = dialect.quoted(table.column(*role).unwrap_or_default());
            filled(
                &format!(
                    "SELECT '{of_what}' AS of_what, {value} AS value_of, COUNT(*) AS calls\nFROM {{table}}\nWHERE {only}{value} IS NOT NULL\nGROUP BY {value}\n"
                ),
                table,
                dialect,
            )
        })
        .collect();
    if !lengths.is_empty() {
        let answers = "How many calls had prompts and answers of which length, and met how much at once";
        queries.push(Query { name: "lengths", answers, text: lengths.join("UNION ALL\n") });
    }
    queries
}

fn filled(template: &str, table: &LogTable, dialect: Dialect) -> String {
    let column = |role| table.column(role).map(|name| dialect.quoted(name));
    let succeeded = match (column(Role::Status), column(Role::OutputTokens)) {
        (Some(status), _) => {
            let text = dialect.as_text(&status);
            format!(
                "(LOWER({text}) IN ('ok', 'success', 'succeeded', 'completed', 'complete', 'done', 'true', 't', 'stop', 'length') OR {text} LIKE '2__')"
            )
        }
        // Without a status, a call that failed has no answer.
        (None, Some(output)) => format!("({output} > 0)"),
        (None, None) => "(1 = 1)".to_owned(),
    };
    let time = column(Role::Time).unwrap_or_default();
    let mut text = template
        .replace("{second}", &dialect.whole(&format!("FLOOR({})", dialect.epoch_seconds(&time))))
        .replace("{seconds}", &dialect.epoch_seconds(&time))
        .replace("{before:at_s}", &dialect.before("at_s"))
        .replace("{succeeded}", &succeeded)
        .replace("{load}", &load(table, &column(Role::Concurrent).unwrap_or_default()))
        .replace("{table}", &table.name)
        .replace("{time}", &time);
    for (mark, role) in [("{request}", Role::Request), ("{latency}", Role::Latency), ("{concurrent}", Role::Concurrent)] {
        text = text.replace(mark, &column(role).unwrap_or_default());
    }
    // `{whole:...}` makes a whole number of what stands in it.
    while let Some(begins) = text.rfind("{whole:") {
        let Some(length) = text[begins..].find('}') else { break };
        let inner = text[begins + 7..begins + length].to_owned();
        text.replace_range(begins..=begins + length, &dialect.whole(&inner));
    }
    text
}

/// The lower end of the bucket of a concurrency.
fn load(table: &LogTable, concurrent: &str) -> String {
    let mut text = "CASE".to_owned();
    for (at, edge) in table.load_edges.iter().enumerate() {
        let from = at.checked_sub(1).map_or(0, |before| table.load_edges[before]);
        text.push_str(&format!(" WHEN {concurrent} < {edge} THEN {from}"));
    }
    text + &format!(" ELSE {} END", table.load_edges.last().copied().unwrap_or(0))
}

type Template = (&'static str, &'static str, &'static [Role], &'static str);

/// Name in the result, column, and which calls count.
const LENGTHS: [(&str, Role, &str); 5] = [
    ("input", Role::InputTokens, "{succeeded} AND "),
    ("output", Role::OutputTokens, "{succeeded} AND "),
    ("all_input", Role::InputTokens, ""),
    ("all_output", Role::OutputTokens, ""),
    ("concurrent", Role::Concurrent, ""),
];

const TEMPLATES: [Template; 5] = [
    ("hours", "Requests by hour, with p95 and peak of requests per minute; empty minutes count", &[Role::Time], include_str!("hours.sql")),
    ("totals", "Requests, failures, span and gaps", &[Role::Time], include_str!("totals.sql")),
    ("rates", "How many windows of a second, a minute and an hour had how many requests", &[Role::Time], include_str!("rates.sql")),
    ("load", "Latency p95 by what was going on at once", &[Role::Concurrent, Role::Latency], include_str!("load.sql")),
    (
        "recompute",
        "Calls and successful outputs by the hour in which the visible request began",
        &[Role::Request],
        include_str!("recompute.sql"),
    ),
];
