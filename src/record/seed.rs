//! Seeds as text in JSON: most readers keep numbers as floats, which lose the last digits of a large one.

use serde::{Deserialize, Deserializer, Serializer};

/// A seed as it may be written: as text, or as the number that it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(super) fn serialize<S: Serializer>(seed: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(seed)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Written::deserialize(from)? {
        Written::Number(seed) => Ok(seed),
        Written::Text(text) => text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no seed"))),
    }
}
