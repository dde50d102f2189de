//! Decodes blocks of JSON lines: of each record the wanted keys only, nested ones by dotted path; the rest is checked and skipped.

use std::collections::BTreeSet;
use std::fmt;

use memchr::memchr_iter;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::table::cell::Cell;
use crate::table::scan::{Part, Reject};

/// The wanted keys at one depth.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    keys: Vec<(String, Wanted)>,
    /// How many cells a record gives.
    cells: usize,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    /// Where the value goes, if it is one.
    slots: Vec<usize>,
    /// What is wanted of it, if it is an object.
    below: Keys,
}

impl Keys {
    /// The tree of dotted paths. A dot may also belong to a key, as in `{"usage.prompt_tokens": 5}`.
    pub(super) fn new(paths: &[String]) -> Self {
        let mut keys = Self { cells: paths.len(), ..Self::default() };
        for (slot, path) in paths.iter().enumerate() {
            keys.add(path, slot);
        }
        keys
    }

    fn add(&mut self, path: &str, slot: usize) {
        self.key(path).slots.push(slot);
        for (dot, _) in path.match_indices('.') {
            self.key(&path[..dot]).below.add(&path[dot + 1..], slot);
        }
    }

    fn key(&mut self, name: &str) -> &mut Wanted {
        let at = self.keys.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
            self.keys.push((name.to_owned(), Wanted::default()));
            self.keys.len() - 1
        });
        &mut self.keys[at].1
    }
}

/// A cell, with its text where that cannot be borrowed because something in it is escaped.
#[derive(Clone, Debug)]
enum Held<'a> {
    Cell(Cell<'a>),
    Escaped(String),
}

impl Held<'_> {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Cell(cell) => *cell,
            Self::Escaped(text) => Cell::Text(text),
        }
    }
}

/// Adds the rows of a block to `part`, lines counted from 1.
pub(super) fn decode<T, E>(block: &[u8], keys: &Keys, decode: &impl Fn(&[Cell<'_>]) -> Result<T, E>, part: &mut Part<T, E>) {
    let whole = std::str::from_utf8(block).ok();
    let (mut held, mut cells) = (vec![Held::Cell(Cell::Missing); keys.cells], Vec::with_capacity(keys.cells));
    let mut start = 0;
    let ends = memchr_iter(b'\n', block).chain((!block.is_empty() && !block.ends_with(b"\n")).then_some(block.len()));
    for end in ends {
        part.lines += 1;
        let line = start..end;
        start = end + 1;
        // Without the block's text a bad byte is somewhere in it, and spoils its own line only.
        let text = match whole {
            Some(whole) => Ok(&whole[line]),
            None => std::str::from_utf8(&block[line]),
        };
        let read = match text.map(str::trim_ascii) {
            Ok("") => continue,
            Ok(text) => record(text, keys, &mut held),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        if let Err(problem) = read {
            part.rejected.push((part.lines, Reject::NotARow(problem)));
            continue;
        }
        let row = if held.iter().any(|held| matches!(held, Held::Escaped(_))) {
            decode(&held.iter().map(Held::cell).collect::<Vec<_>>())
        } else {
            cells.clear();
            cells.extend(held.iter().map(|held| if let Held::Cell(cell) = held { *cell } else { Cell::Missing }));
            decode(&cells)
        };
        match row {
            Ok(row) => part.rows.push(row),
            Err(error) => part.rejected.push((part.lines, Reject::Cell(error))),
        }
    }
}

fn record<'a>(text: &'a str, keys: &Keys, held: &mut [Held<'a>]) -> Result<(), String> {
    held.fill(Held::Cell(Cell::Missing));
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Seed { wanted: None, below: keys, held }.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) if text.starts_with('{') => Ok(()),
        Ok(()) => Err("it is JSON, but not an object".to_owned()),
        Err(error) => Err(format!("it is not JSON ({error})")),
    }
}

/// Takes the value of one key; of the record itself there is none.
struct Seed<'k, 'h, 'a> {
    wanted: Option<&'k Wanted>,
    below: &'k Keys,
    held: &'h mut [Held<'a>],
}

impl<'a> Seed<'_, '_, 'a> {
    fn put<E>(self, value: Held<'a>) -> Result<(), E> {
        if let Some((last, others)) = self.wanted.and_then(|wanted| wanted.slots.split_last()) {
            for slot in others {
                self.held[*slot] = value.clone();
            }
            self.held[*last] = value;
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Seed<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Seed<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Held::Cell(Cell::Missing))
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Held::Cell(Cell::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Held::Cell(Cell::Whole(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Held::Cell(i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Whole)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(Held::Cell(Cell::Number(value)))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(Held::Escaped(text.to_owned()))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.put(Held::Cell(Cell::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.put(Held::Cell(Cell::Missing))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(found) = object.next_key_seed(Key(self.below))? {
            let Some(wanted) = found else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            object.next_value_seed(Seed { wanted: Some(wanted), below: &wanted.below, held: self.held })?;
        }
        self.put(Held::Cell(Cell::Missing))
    }
}

/// Finds a key among the wanted ones.
struct Key<'k>(&'k Keys);

impl<'k> Key<'k> {
    fn find(&self, name: &str) -> Option<&'k Wanted> {
        self.0.keys.iter().find(|(key, _)| key == name).map(|(_, wanted)| wanted)
    }
}

impl<'a, 'k> DeserializeSeed<'a> for Key<'k> {
    type Value = Option<&'k Wanted>;

    fn deserialize<D: Deserializer<'a>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_identifier(self)
    }
}

impl<'k> Visitor<'_> for Key<'k> {
    type Value = Option<&'k Wanted>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.find(name))
    }
}

/// Adds the dotted paths of a record's values to `columns`, but for lists.
pub(super) fn paths(record: &Map<String, Value>, above: &str, columns: &mut BTreeSet<String>) {
    for (key, value) in record {
        let path = format!("{above}{key}");
        match value {
            Value::Object(below) => paths(below, &format!("{path}."), columns),
            Value::Array(_) => {}
            _ => {
                columns.insert(path);
            }
        }
    }
}
