//! What a GPU costs for an hour: one price for all, or one by the name of a GPU, a run or a file.

use std::collections::BTreeMap;
use std::str::FromStr;

/// A price, for everything or for what has a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Price {
    kind: Option<String>,
    per_hour: f64,
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, price) = text.rsplit_once('=').map_or((None, text), |(kind, price)| (Some(kind.trim()), price));
        let refuse = || format!("`{text}` is no price. Write one above 0, such as 2.5 or H100=2.5");
        let per_hour = price.trim().parse::<f64>().map_err(|_| refuse())?;
        let is_price = per_hour > 0.0 && per_hour.is_finite() && kind.is_none_or(|kind| !kind.is_empty());
        if is_price { Ok(Self { kind: kind.map(str::to_owned), per_hour }) } else { Err(refuse()) }
    }
}

/// The price of what goes by these names: by the longest kind that is part of one of them, flags before the file, else the one for all.
pub(super) fn of(names: &[String], flags: &[Price], file: &BTreeMap<String, f64>, for_all: Option<f64>) -> Option<f64> {
    let has = |kind: &str| names.iter().any(|name| name.to_lowercase().contains(&kind.to_lowercase()));
    let by_flag = flags.iter().filter_map(|price| Some((price.kind.as_deref()?, price.per_hour))).filter(|(kind, _)| has(kind));
    let by_file = file.iter().map(|(kind, price)| (kind.as_str(), *price)).filter(|(kind, _)| has(kind));
    let longest = |(one, _): &(&str, f64), (other, _): &(&str, f64)| one.len().cmp(&other.len());
    let plain = flags.iter().find(|price| price.kind.is_none()).map(|price| price.per_hour);
    by_flag.max_by(longest).or(plain.map(|price| ("", price))).or_else(|| by_file.max_by(longest)).map(|(_, price)| price).or(for_all)
}
