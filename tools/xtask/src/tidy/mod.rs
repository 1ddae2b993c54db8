//! The rules of ARCHITECTURE.md that a machine can check.

pub mod edges;
pub mod packages;
pub mod sources;
pub mod targets;

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};

/// A rule that is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A path from the root, with a line where one is to blame; or a crate's name.
    pub place: String,
    pub message: String,
}

impl Finding {
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    pub broken: Vec<Finding>,
    /// Worth a look, no failure: files that grow long.
    pub notes: Vec<Finding>,
    pub files: usize,
    pub edges: usize,
    pub packages: usize,
}

impl Report {
    pub fn is_tidy(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note    {}: {}", note.place, note.message)?;
        }
        for broken in &self.broken {
            writeln!(f, "broken  {}: {}", broken.place, broken.message)?;
        }
        let state = if self.is_tidy() { "tidy" } else { "NOT tidy" };
        let (files, edges, packages, broken) = (self.files, self.edges, self.packages, self.broken.len());
        write!(
            f,
            "{state}: {files} files, {edges} edges, {packages} packages, {broken} broken rules"
        )
    }
}

/// Checks the workspace at `root`.
pub fn run(root: &Path) -> Result<Report> {
    let mut report = Report::default();
    for edge in edges::read(root)? {
        report.edges += 1;
        report.broken.extend(edges::check(&edge));
    }
    report.broken.extend(targets::run(root)?);
    let (broken, packages) = packages::run(root)?;
    report.broken.extend(broken);
    report.packages = packages;
    for shelf in ["core", "ports", "roles", "tools", "runtimes"] {
        let folder = root.join(shelf);
        if folder.is_dir() {
            walk(root, &folder, &mut report)?;
        }
    }
    Ok(report)
}

/// Folders whose content is built or downloaded.
const NOT_OURS: [&str; 5] = ["node_modules", "build", "dist", "target", "__pycache__"];

fn walk(root: &Path, folder: &Path, report: &mut Report) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect)
        .with_context(|| format!("list {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let shown = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if NOT_OURS.iter().any(|skipped| name == *skipped) {
                continue;
            }
            report.broken.extend(sources::check_name(&shown));
            walk(root, &path, report)?;
        } else if sources::is_source(&shown) {
            let text = fs::read_to_string(&path).with_context(|| format!("read {shown}"))?;
            report.files += 1;
            report.broken.extend(sources::check_name(&shown));
            report.broken.extend(sources::check_text(&shown, &text));
            report.notes.extend(sources::note_length(&shown, &text));
        }
    }
    Ok(())
}
