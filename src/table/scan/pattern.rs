//! Names of files as they are given, with patterns, to the files they mean.

use std::path::Path;

use crate::table::read::TableError;
use crate::table::source::Source;

/// The sources that a name means, sorted: standard input for `-`, the file of exactly that name, or else every file that matches it as a pattern
/// (`*`, `?`, `[a-z]`, `**` for any folders). Folders and what cannot be looked into do not match.
///
/// # Errors
/// Where nothing matches, or the pattern means nothing.
pub fn expand(pattern: &str) -> Result<Vec<Source>, TableError> {
    let named = Source::named(pattern);
    if named == Source::Stdin || Path::new(pattern).exists() {
        return Ok(vec![named]);
    }
    let paths =
        glob::glob(pattern).map_err(|error| TableError::BadPattern { pattern: pattern.to_owned(), problem: error.msg.to_owned() })?;
    let mut found = paths.filter_map(Result::ok).filter(|path| !path.is_dir()).collect::<Vec<_>>();
    found.sort();
    if found.is_empty() {
        return Err(TableError::NoMatch { pattern: pattern.to_owned() });
    }
    Ok(found.into_iter().map(Source::Path).collect())
}
