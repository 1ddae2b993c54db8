//! Gathers what a tool installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use bytes::Bytes;
use serde_json::Value;

use crate::{Options, ResolveError, Resolved, tool};

/// The files below `packages/`, their versions by the metadata directories that pip leaves.
pub(crate) async fn python(work: &Path, options: &Options) -> Result<Resolved, ResolveError> {
    let files = gather(work, "packages", options).await?;
    let versions = files
        .iter()
        .filter(|(path, _)| path.ends_with(".dist-info/METADATA"))
        .filter_map(|(_, text)| dist(text));
    let versions: BTreeSet<String> = versions.collect();
    let native = files.keys().any(|path| is_native_python(path));
    Ok(Resolved {
        folder: "packages",
        versions: versions.into_iter().collect(),
        native,
        files,
    })
}

/// The files below `node_modules/`, their versions by the lock file that npm leaves.
pub(crate) async fn javascript(work: &Path, options: &Options) -> Result<Resolved, ResolveError> {
    let files = gather(work, "node_modules", options).await?;
    let lock = tokio::fs::read(work.join("package-lock.json"))
        .await
        .map_err(ResolveError::io("read npm's lock file"))?;
    let lock: Value = serde_json::from_slice(&lock)
        .map_err(|error| ResolveError::io("read npm's lock file")(io::Error::other(error)))?;
    let locked = lock["packages"].as_object().into_iter().flatten();
    let versions: BTreeSet<String> = locked
        .filter_map(|(path, package)| npm_version(path, package))
        .collect();
    let native = files.keys().any(|path| path.ends_with(".node"));
    Ok(Resolved {
        folder: "node_modules",
        versions: versions.into_iter().collect(),
        native,
        files,
    })
}

/// `lib.so`, `lib.so.6`: code for this kind of machine.
fn is_native_python(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so") || name.contains(".so.")
}

fn dist(metadata: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(metadata);
    let field = |name: &str| {
        text.lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name))
    };
    Some(format!("{}=={}", field("Name: ")?.trim(), field("Version: ")?.trim()))
}

fn npm_version(path: &str, package: &Value) -> Option<String> {
    let (_, name) = path.rsplit_once("node_modules/")?;
    Some(format!("{name}=={}", package["version"].as_str()?))
}

async fn gather(work: &Path, folder: &'static str, options: &Options) -> Result<BTreeMap<String, Bytes>, ResolveError> {
    let (work, caps) = (work.to_owned(), options.clone());
    let gathering = move || {
        let mut files = BTreeMap::new();
        let mut bytes = 0;
        let all = walk(&work.join(folder), folder, &mut |path, file| {
            bytes += file.metadata()?.len();
            if bytes > caps.bytes_max || files.len() >= caps.files_max {
                return Err(io::Error::other(TooLarge));
            }
            files.insert(path, fs::read(file.path())?.into());
            Ok(())
        });
        match all {
            Ok(()) => Ok(files),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) => {
                Err(tool::too_large(&caps).into())
            }
            Err(error) => Err(ResolveError::io("read the installed packages")(error)),
        }
    };
    tokio::task::spawn_blocking(gathering)
        .await
        .map_err(|error| ResolveError::io("read the installed packages")(error.into()))?
}

#[derive(Debug, thiserror::Error)]
#[error("more than allowed was installed")]
struct TooLarge;

/// Calls `visit` with each regular file below `folder`. Links are passed over: nothing outside is ever read.
fn walk(
    folder: &Path,
    prefix: &str,
    visit: &mut impl FnMut(String, &fs::DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A tool may delete a folder while its disk is measured; pip makes none when every marker excluded its package.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = format!("{prefix}/{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "__pycache__" {
            walk(&entry.path(), &path, visit)?;
        } else if kind.is_file() && path != "node_modules/.package-lock.json" {
            visit(path, &entry)?;
        }
    }
    Ok(())
}

/// Bytes of the regular files below `folder`, as far as they can be seen while a tool changes them.
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    // A file that vanished meanwhile ends this measurement early; the next comes soon.
    let _ = walk(folder, "", &mut |_, file| {
        bytes += file.metadata().map_or(0, |metadata| metadata.len());
        Ok(())
    });
    bytes
}
