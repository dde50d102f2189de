//! A JSON object read key by key, so that every error names the file and the key.
//!
//! Knows nothing of models; what a value means is decided in `config`.

use serde_json::{Map, Value};

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened or read.
    #[error(
        "cannot read the model's configuration `{file}`: {source}. Give a folder with config.json and safetensors files, or the name of a preset"
    )]
    Read {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a JSON object.
    #[error("`{file}` is no JSON object: {problem}. Download it again")]
    NotJson {
        /// Which file.
        file: String,
        /// What the parser said.
        problem: String,
    },
    /// A key without which the shape is unknown.
    #[error("`{file}` has no `{key}`. Take the config.json that belongs to these weights")]
    Missing {
        /// Which file.
        file: String,
        /// Which key.
        key: String,
    },
    /// A value that cannot be.
    #[error("`{key}` in `{file}` is `{value}`, but {wanted}. Take the config.json that belongs to these weights")]
    Invalid {
        /// Which file.
        file: String,
        /// Which key.
        key: String,
        /// What it says.
        value: String,
        /// What would do.
        wanted: String,
    },
    /// A legitimate model that the layer loop does not compute.
    #[error("`{key}` in `{file}` is `{value}`, which the built-in engine does not compute. It knows {known}")]
    Unsupported {
        /// Which file.
        file: String,
        /// Which key.
        key: String,
        /// What it says.
        value: String,
        /// What is known.
        known: String,
    },
}

/// An object of the file, read key by key with errors that name both.
pub(super) struct Keys<'a> {
    pub(super) file: &'a str,
    /// What precedes its keys in messages: the path of a nested object.
    pub(super) prefix: &'static str,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The value, where there is one that is not null.
    pub(super) fn present(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn typed<T>(&self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, ConfigError> {
        self.present(key).map(|value| read(value).ok_or_else(|| self.invalid(key, wanted))).transpose()
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "must be text", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        Ok(self.typed(key, "must be true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn nested(&self, key: &'static str, prefix: &'static str) -> Result<Option<Keys<'a>>, ConfigError> {
        let object = self.typed(key, "must be an object", Value::as_object)?;
        Ok(object.map(|object| Keys { file: self.file, prefix, object }))
    }

    pub(super) fn optional_integer(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.typed(key, "must be a whole number, 0 or more", Value::as_u64)
    }

    pub(super) fn optional_count(&self, key: &str, most: usize) -> Result<Option<usize>, ConfigError> {
        let read = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| (1..=most).contains(count));
        self.typed(key, &format!("must be a whole number from 1 to {most}"), read)
    }

    pub(super) fn count(&self, key: &str, most: usize) -> Result<usize, ConfigError> {
        self.optional_count(key, most)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "must be a number", Value::as_f64)
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "must be a number above 0", |value| value.as_f64().filter(|number| *number > 0.0))
    }

    pub(super) fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn named(&self, key: &str) -> (String, String, String) {
        let value = self.object.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
        (self.file.to_owned(), format!("{}{key}", self.prefix), value.trim_matches('"').to_owned())
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        let (file, key, _) = self.named(key);
        ConfigError::Missing { file, key }
    }

    pub(super) fn invalid(&self, key: &str, wanted: &str) -> ConfigError {
        let (file, key, value) = self.named(key);
        ConfigError::Invalid { file, key, value, wanted: format!("it {wanted}") }
    }

    pub(super) fn unsupported(&self, key: &str, known: &str) -> ConfigError {
        let (file, key, value) = self.named(key);
        ConfigError::Unsupported { file, key, value, known: known.to_owned() }
    }
}
