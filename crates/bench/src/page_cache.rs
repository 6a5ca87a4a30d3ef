//! The kernel's page cache: dropping what it has of files, and looking what it still has.
//!
//! Dropped by `posix_fadvise(DONTNEED)` after everything dirty was written, without a privilege. A machine below this
//! one may still have what its guest has dropped: cold means cold for this kernel.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{Advice, fadvise};

use crate::process::{command, find, run};

/// All files below `directory`.
pub fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Drops what is below `directory` from the page cache. Gives the bytes of it that are still there, when `fincore` is
/// installed to tell (util-linux).
pub async fn drop_below(directory: &Path) -> anyhow::Result<Option<u64>> {
    let files = files_below(directory)?;
    let dropped = files.clone();
    tokio::task::spawn_blocking(move || drop_files(&dropped))
        .await
        .context("dropping pages ended badly")??;
    resident_bytes(&files).await
}

fn drop_files(files: &[PathBuf]) -> anyhow::Result<()> {
    for path in files {
        // A temporary file may be gone by now.
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.with_context(|| format!("cannot open {}", path.display()))?,
        };
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Asked of a program that maps the files: a read to see whether a page is there would start reading ahead.
async fn resident_bytes(files: &[PathBuf]) -> anyhow::Result<Option<u64>> {
    let Some(fincore) = find("fincore").filter(|_| !files.is_empty()) else {
        return Ok(None);
    };
    let mut command = command(fincore);
    command
        .args(["--bytes", "--noheadings", "--raw", "--output", "RES"])
        .args(files);
    let said = run(command).await?;
    let bytes = said.lines().map(|line| line.trim().parse::<u64>());
    let sum = bytes.sum::<Result<u64, _>>().context("fincore gave no numbers")?;
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_dropped_is_not_in_the_page_cache() {
        // Beside this program: the system's directory for temporary files may be in memory.
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        let path = directory.path().join("inner/file");
        std::fs::write(&path, vec![1; 4 << 20]).unwrap();
        let files = files_below(directory.path()).unwrap();
        assert_eq!(files, std::slice::from_ref(&path));
        let before = resident_bytes(&files).await.unwrap();
        assert!(before.is_none_or(|bytes| bytes == 4 << 20), "it was just written");
        let after = drop_below(directory.path()).await.unwrap();
        assert!(after.is_none_or(|bytes| bytes < 1 << 20), "{after:?}");
        std::fs::remove_file(&path).unwrap();
        drop_files(&files).unwrap();
        assert_eq!(drop_below(directory.path()).await.unwrap(), None, "no file, no error");
    }
}
