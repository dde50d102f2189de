//! Folders that are named by ULIDs, and the names that people give them: `latest`, an id, its first letters in either case, or a path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::runs::StoreError;

/// What goes by a name.
#[derive(Debug)]
pub(super) enum Named {
    /// This folder.
    One(PathBuf),
    /// Nothing.
    None,
    /// Several, by their ids.
    Several(Vec<String>),
}

/// The folder in `among` that goes by `name`; a path must hold the file `marker`.
pub(super) fn find(among: &Path, marker: &str, name: &str) -> Result<Named, StoreError> {
    let path = Path::new(name);
    if path.join(marker).is_file() {
        return Ok(Named::One(path.to_owned()));
    }
    let ids = ids(among)?;
    if name == "latest" {
        return Ok(ids.last().map_or(Named::None, |id| Named::One(among.join(id))));
    }
    let wanted = name.to_ascii_uppercase();
    let mut fits = ids.into_iter().filter(|id| !wanted.is_empty() && id.starts_with(&wanted)).collect::<Vec<_>>();
    Ok(match fits.len() {
        0 => Named::None,
        1 => Named::One(among.join(fits.remove(0))),
        _ => Named::Several(fits),
    })
}

/// Names of the folders in `among`, oldest first; none where it is not there.
pub(super) fn ids(among: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(among) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(StoreError::Read { path: among.to_owned(), cause }),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids = names.filter(|name| ulid::Ulid::from_string(name).is_ok()).collect::<Vec<_>>();
    ids.sort_unstable();
    Ok(ids)
}
