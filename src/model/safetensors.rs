//! Maps the safetensors files of a checkpoint and hands out their tensors as checked slices of bytes.
//!
//! Every length a header states is compared with the file's size before it is believed, and nothing is copied
//! or allocated for data here. Which tensors there must be is said by [`tensors`].

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::{Dtype as StoredDtype, SafeTensors};
use serde::Deserialize;

use crate::model::config::ModelConfig;
use crate::model::tensors::{self, Dtype, TensorSpec};

/// Why the weights of a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// No weights at all.
    #[error(
        "`{folder}` holds neither `model.safetensors` nor `model.safetensors.index.json`. Download the safetensors files of the model, or give a preset's name for random weights"
    )]
    NoWeights {
        /// Which folder.
        folder: String,
    },
    /// A file cannot be opened, read or mapped.
    #[error("cannot read the weights `{file}`: {source}. Check that it is a readable file")]
    Read {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index is no index.
    #[error("`{file}` is no index of safetensors files: {problem}. Download it again")]
    Index {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The index names a file that is not there.
    #[error("the weights are incomplete: the index names `{shard}`, which `{folder}` does not hold. Download the missing file")]
    MissingShard {
        /// Which folder.
        folder: String,
        /// Which file.
        shard: String,
    },
    /// The header and the file disagree.
    #[error("`{file}` is damaged: {problem}. Download it again")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor of the shape in the configuration is not there.
    #[error(
        "the weights in `{folder}` have no tensor `{tensor}`, which the configuration asks for. Check that config.json and weights belong together"
    )]
    MissingTensor {
        /// Which folder.
        folder: String,
        /// Which tensor.
        tensor: String,
    },
    /// A tensor that the layer loop would leave out.
    #[error(
        "the weights in `{folder}` have a tensor `{tensor}`, which the configuration does not account for. Check that config.json and weights belong together"
    )]
    UnexpectedTensor {
        /// Which folder.
        folder: String,
        /// Which tensor.
        tensor: String,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{tensor}` in `{file}` has the shape `{found:?}` where the configuration says `{wanted:?}`{hint}. Check that config.json and weights belong together"
    )]
    WrongShape {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        wanted: Vec<usize>,
        /// Which keys the lengths come from, where that helps.
        hint: &'static str,
    },
    /// A type of number that is not read.
    #[error("tensor `{tensor}` in `{file}` is stored as `{dtype}`. Convert the checkpoint to f32, f16 or bf16")]
    UnsupportedDtype {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// Its type, as the file says.
        dtype: String,
    },
}

/// One tensor in a mapped file, row-major, little-endian. It keeps the file mapped.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Element type.
    pub dtype: Dtype,
    /// The file it is in.
    pub map: Arc<Mmap>,
    /// Its bytes there: exactly elements x size of one.
    pub range: Range<usize>,
}

/// The mapped weights of a model. Immutable; shared by every engine that runs it.
#[derive(Debug)]
pub struct Checkpoint {
    folder: String,
    shards: Vec<Shard>,
    /// Where each tensor is.
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    file: String,
    /// Kept open, so that its length can be asked for.
    opened: File,
    map: Arc<Mmap>,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    dtype: StoredDtype,
    shape: Vec<usize>,
    /// Byte range in the file.
    range: Range<usize>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the safetensors files of `folder` and checks them against their own headers and against `config`.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the configuration.
    pub fn open(folder: &Path, config: &ModelConfig) -> Result<Self, WeightsError> {
        let mut checkpoint = Self { folder: folder.display().to_string(), shards: Vec::new(), places: BTreeMap::new() };
        let index = folder.join("model.safetensors.index.json");
        if folder.join("model.safetensors").exists() {
            checkpoint.add(folder, "model.safetensors")?;
        } else if index.exists() {
            checkpoint.add_indexed(folder, &index)?;
        } else {
            return Err(WeightsError::NoWeights { folder: checkpoint.folder });
        }
        checkpoint.check_lengths()?;
        checkpoint.check(config)?;
        Ok(checkpoint)
    }

    /// The tensor that `spec` asks for; it was checked when the checkpoint was opened.
    ///
    /// # Errors
    /// When `spec` is not of the configuration the checkpoint was opened with.
    pub fn tensor(&self, spec: &TensorSpec) -> Result<StoredTensor, WeightsError> {
        let missing = || WeightsError::MissingTensor { folder: self.folder.clone(), tensor: spec.name.clone() };
        let place = self.places.get(&spec.name).ok_or_else(missing)?;
        let shard = &self.shards[place.shard];
        if place.shape != spec.shape {
            let hint = match spec.role {
                tensors::TensorRole::Embedding | tensors::TensorRole::Output => " (rows are `vocab_size`, columns `hidden_size`)",
                _ => "",
            };
            let (file, tensor) = (shard.file.clone(), spec.name.clone());
            return Err(WeightsError::WrongShape { file, tensor, found: place.shape.clone(), wanted: spec.shape.clone(), hint });
        }
        let dtype = match place.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            other => {
                let (file, tensor) = (shard.file.clone(), spec.name.clone());
                return Err(WeightsError::UnsupportedDtype { file, tensor, dtype: other.to_string() });
            }
        };
        Ok(StoredTensor { dtype, map: Arc::clone(&shard.map), range: place.range.clone() })
    }

    /// That every file is still as long as when it was mapped.
    ///
    /// # Errors
    /// When one was cut short or lengthened since.
    pub fn check_lengths(&self) -> Result<(), WeightsError> {
        for Shard { file, opened, map } in &self.shards {
            let now = opened.metadata().map_err(|source| WeightsError::Read { file: file.clone(), source })?.len();
            if now != map.len() as u64 {
                let problem = format!("it has {now} bytes now, and had {} when it was opened: something writes to it", map.len());
                return Err(WeightsError::Damaged { file: file.clone(), problem });
            }
        }
        Ok(())
    }

    /// That all that is wanted is there, and nothing more.
    fn check(&self, config: &ModelConfig) -> Result<(), WeightsError> {
        let wanted = tensors::tensors(config);
        for spec in &wanted {
            self.tensor(spec)?;
        }
        let names: std::collections::BTreeSet<_> = wanted.iter().map(|spec| spec.name.as_str()).collect();
        // Old files carry the rotation table; files of tied models may carry the shared matrix twice.
        let harmless = |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
        match self.places.keys().find(|name| !names.contains(name.as_str()) && !harmless(name)) {
            Some(name) => Err(WeightsError::UnexpectedTensor { folder: self.folder.clone(), tensor: name.clone() }),
            None => Ok(()),
        }
    }

    fn add_indexed(&mut self, folder: &Path, index: &Path) -> Result<(), WeightsError> {
        let file = index.display().to_string();
        let bad = |problem: String| WeightsError::Index { file: file.clone(), problem };
        let text = std::fs::read_to_string(index).map_err(|source| WeightsError::Read { file: file.clone(), source })?;
        let ShardIndex { weight_map } = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let mut shards: Vec<_> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            // A file name, not a path that leads elsewhere.
            if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                return Err(bad(format!("`{shard}` is not the name of a file beside it")));
            }
            if !folder.join(shard).exists() {
                return Err(WeightsError::MissingShard { folder: self.folder.clone(), shard: shard.clone() });
            }
            self.add(folder, shard)?;
        }
        match weight_map.iter().find(|(tensor, _)| !self.places.contains_key(*tensor)) {
            Some((tensor, shard)) => Err(bad(format!("it says that `{shard}` holds `{tensor}`, which it does not"))),
            None => Ok(()),
        }
    }

    fn add(&mut self, folder: &Path, name: &str) -> Result<(), WeightsError> {
        let path = folder.join(name);
        let file = path.display().to_string();
        let unreadable = |source| WeightsError::Read { file: file.clone(), source };
        let opened = File::open(&path).map_err(unreadable)?;
        // SAFETY: the map is read-only and private to this process. Were another process to write into the file under
        // it, numbers would change, as with any mapped model; no length is taken from the data part. Were it to cut the file
        // short, reading beyond the new end would end this process (SIGBUS): `check_lengths` finds that between engines, and
        // nothing can while one runs. Replacing a file by renaming another over it is harmless: the map keeps the old one.
        let map = unsafe { Mmap::map(&opened) }.map_err(unreadable)?;
        let damaged = |problem: String| WeightsError::Damaged { file: file.clone(), problem };
        let (header_bytes, header) = SafeTensors::read_metadata(&map).map_err(|error| damaged(explain(&error, &map)))?;
        let data_start = size_of::<u64>() + header_bytes;
        for (tensor, info) in header.tensors() {
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            let place = Place { shard: self.shards.len(), dtype: info.dtype, shape: info.shape.clone(), range };
            if self.places.insert(tensor.clone(), place).is_some() {
                return Err(damaged(format!("its tensor `{tensor}` is in another file too")));
            }
        }
        self.shards.push(Shard { file, opened, map: Arc::new(map) });
        Ok(())
    }
}

/// Says what is wrong with a file whose header was not accepted, with its sizes.
fn explain(error: &safetensors::SafeTensorError, bytes: &[u8]) -> String {
    use safetensors::SafeTensorError as E;
    let stated = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    match (error, stated) {
        (E::HeaderTooSmall, _) | (_, None) => format!("it has {} bytes, too few for a header's length", bytes.len()),
        (E::HeaderTooLarge | E::InvalidHeaderLength, Some(stated)) => {
            format!("it states a header of {stated} bytes, and has {} bytes in all", bytes.len())
        }
        (E::MetadataIncompleteBuffer, Some(_)) => {
            format!("its {} bytes are not as many as its header accounts for: it was cut short, or something was added", bytes.len())
        }
        (E::TensorInvalidInfo, _) => "a tensor's length is not what its shape and type need".to_owned(),
        _ => error.to_string(),
    }
}
