//! Files written completely or not at all: each goes to a temporary name, and all are renamed once all are written.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, Result};

/// Files that wait for their names. What was not committed is removed.
#[derive(Default)]
pub(super) struct Staged {
    /// Temporary and final name.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Staged {
    /// Writes a file under a temporary name in its folder.
    pub(super) fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let Some(name) = path.file_name() else {
            return Err(Failure::at(path, "is no name of a file"));
        };
        if path.is_dir() {
            return Err(Failure::at(path, "is a folder"));
        }
        let temporary = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let temporary = path.with_file_name(temporary);
        self.files.push((temporary.clone(), path.to_owned()));
        fs::write(&temporary, bytes).map_err(|error| Failure::at(path, error))
    }

    /// Gives every file its name.
    pub(super) fn commit(mut self) -> Result<()> {
        for (temporary, path) in self.files.drain(..) {
            fs::rename(&temporary, &path).map_err(|error| Failure::at(&path, error))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // Nothing can be done where this fails, and there is an error to tell already.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::at(path, error))
}

/// Makes a folder for files to come.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Failure::at(path, error))
}

/// A name from a model as the name of a file: letters, digits, `.`, `_` and `-` stay.
pub(super) fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    // Most systems end a name at 255 bytes; an index before and an ending behind it fit as well.
    name.chars().map(keep).take(100).collect()
}
