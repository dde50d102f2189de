//! Text to token ids and back, by a checkpoint's `tokenizer.json`.
//!
//! A thin room around the `tokenizers` crate. Benchmarks come here only for a server that does not count its tokens itself.

use std::path::Path;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not there or not a tokenizer.
    #[error("cannot read the tokenizer `{file}`: {problem}. Take the tokenizer.json of the model, or give the prompt as ids")]
    Read {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// It makes ids the model has no embedding for.
    #[error(
        "the tokenizer `{file}` has ids up to `{highest}`, but the model's `vocab_size` is `{vocab_size}`. Take the tokenizer.json that belongs to these weights"
    )]
    VocabMismatch {
        /// Which file.
        file: String,
        /// Its highest id.
        highest: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// The text could not be encoded, or the ids not decoded.
    #[error("cannot convert between text and ids with `{file}`: {problem}. Give the prompt as ids")]
    Convert {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
}

/// Whether the tokens a model expects around a text (begin of text and the like) are added or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Added when encoding, kept when decoding.
    Keep,
    /// Neither.
    Skip,
}

/// A checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    file: String,
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads `folder/tokenizer.json` for a model of `vocab_size` ids; `Ok(None)` where there is no such file.
    ///
    /// # Errors
    /// When the file is no tokenizer, or one of a larger vocabulary.
    pub fn open(folder: &Path, vocab_size: usize) -> Result<Option<Self>, TokenizerError> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Ok(None);
        }
        let file = path.display().to_string();
        let read = |error: tokenizers::Error| TokenizerError::Read { file: file.clone(), problem: error.to_string() };
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(read)?;
        match inner.get_vocab(true).into_values().max() {
            Some(highest) if highest as usize >= vocab_size => Err(TokenizerError::VocabMismatch { file, highest, vocab_size }),
            _ => Ok(Some(Self { file, inner })),
        }
    }

    /// Reads the tokenizer at `path`, a file or a folder with a `tokenizer.json`, for whatever model.
    ///
    /// # Errors
    /// When there is none, or the file is none.
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let file = path.display().to_string();
        let read = |error: tokenizers::Error| TokenizerError::Read { file: file.clone(), problem: error.to_string() };
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(read)?;
        Ok(Self { file, inner })
    }

    /// Ids that it makes: one more than the highest.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// Tokens of `text`, without those that a model expects around it; `None` where it cannot take the text.
    #[must_use]
    pub fn count(&self, text: &str) -> Option<u32> {
        let encoding = self.inner.encode_fast(text, false).ok()?;
        u32::try_from(encoding.len()).ok()
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// When the tokenizer cannot take the text.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode(text, special == SpecialTokens::Keep).map_err(|error| self.convert(&error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; bytes that are no UTF-8 become the replacement character.
    ///
    /// # Errors
    /// When the tokenizer cannot take the ids.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String, TokenizerError> {
        self.inner.decode(ids, special == SpecialTokens::Skip).map_err(|error| self.convert(&error))
    }

    fn convert(&self, error: &tokenizers::Error) -> TokenizerError {
        TokenizerError::Convert { file: self.file.clone(), problem: error.to_string() }
    }
}
