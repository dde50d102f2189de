//! Where the dialects of warehouses differ: three expressions and a quotation mark.

use std::fmt;
use std::str::FromStr;

/// A dialect of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// DuckDB.
    Duckdb,
    /// ClickHouse.
    Clickhouse,
    /// Google BigQuery.
    Bigquery,
    /// Snowflake.
    Snowflake,
    /// Trino.
    Trino,
    /// Spark SQL, Databricks.
    Spark,
}

impl Dialect {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("postgres", Self::Postgres),
        ("duckdb", Self::Duckdb),
        ("clickhouse", Self::Clickhouse),
        ("bigquery", Self::Bigquery),
        ("snowflake", Self::Snowflake),
        ("trino", Self::Trino),
        ("spark", Self::Spark),
    ];

    /// A timestamp as seconds since 1970 with their fraction. A timestamp without a zone is taken for UTC.
    pub(super) fn epoch_seconds(self, time: &str) -> String {
        match self {
            Self::Postgres => format!("EXTRACT(EPOCH FROM {time})"),
            Self::Duckdb => format!("epoch({time})"),
            Self::Clickhouse => format!("toUnixTimestamp64Micro(toDateTime64({time}, 6, 'UTC')) / 1000000.0"),
            Self::Bigquery => format!("UNIX_MICROS(CAST({time} AS TIMESTAMP)) / 1000000.0"),
            Self::Snowflake => format!("DATE_PART(EPOCH_MICROSECOND, {time}) / 1000000.0"),
            Self::Trino => format!("to_unixtime({time})"),
            Self::Spark => format!("unix_micros(CAST({time} AS TIMESTAMP)) / 1000000.0D"),
        }
    }

    /// As a whole number.
    pub(super) fn whole(self, expression: &str) -> String {
        match self {
            Self::Clickhouse => format!("toInt64({expression})"),
            Self::Bigquery => format!("CAST({expression} AS INT64)"),
            _ => format!("CAST({expression} AS BIGINT)"),
        }
    }

    /// As text.
    pub(super) fn as_text(self, expression: &str) -> String {
        match self {
            Self::Clickhouse => format!("toString({expression})"),
            Self::Bigquery | Self::Spark => format!("CAST({expression} AS STRING)"),
            _ => format!("CAST({expression} AS VARCHAR)"),
        }
    }

    /// A column's name.
    pub(super) fn quoted(self, name: &str) -> String {
        let plain = name
            .chars()
            .enumerate()
            .all(|(at, letter)| letter == '_' || letter.is_ascii_lowercase() || (at > 0 && letter.is_ascii_digit()));
        match self {
            _ if plain => name.to_owned(),
            Self::Bigquery | Self::Spark | Self::Clickhouse => format!("`{}`", name.replace('`', "\\`")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, dialect)| dialect == self).map_or("", |(name, _)| name);
        out.write_str(name)
    }
}

/// The name is no dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no dialect. Take `postgres`, `duckdb`, `clickhouse`, `bigquery`, `snowflake`, `trino` or `spark`")]
pub struct UnknownDialect(pub String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, dialect)| *dialect).ok_or_else(|| UnknownDialect(name.to_owned()))
    }
}
