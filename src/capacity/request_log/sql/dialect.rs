//! Where the dialects of warehouses differ: a few expressions and a quotation mark.

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
            // A cast takes a timestamp without a zone for the session's zone.
            Self::Spark => format!(
                "unix_micros(CASE WHEN typeof({time}) = 'timestamp_ntz' THEN TO_TIMESTAMP(CONCAT(CAST({time} AS STRING), 'Z')) \
                 ELSE CAST({time} AS TIMESTAMP) END) / 1e6"
            ),
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

    /// The value of the row before, NULL for the first row; the window stands behind it.
    pub(super) fn before(self, value: &str) -> String {
        match self {
            // Where no row is before, it gives the type's default, which is 0 unless the type has NULL.
            Self::Clickhouse => format!("lagInFrame(toNullable({value}))"),
            _ => format!("LAG({value})"),
        }
    }

    /// A column's name, always in quotation marks: any word of the language may be a column.
    pub(super) fn quoted(self, name: &str) -> String {
        match self {
            Self::Bigquery | Self::Clickhouse => format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`")),
            Self::Spark => format!("`{}`", name.replace('`', "``")),
            // A name that was written without marks is kept in capitals there.
            Self::Snowflake if is_plain(name) => format!("\"{}\"", name.to_ascii_uppercase()),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

fn is_plain(name: &str) -> bool {
    let fits = |(at, letter): (usize, char)| letter == '_' || letter.is_ascii_lowercase() || (at > 0 && letter.is_ascii_digit());
    name.chars().enumerate().all(fits)
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
