//! Finds the interpreters of this machine and asks them who they are.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use piecework_model::Language;

/// An interpreter that answered.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// With every link resolved: a link may point out of what a jail sees.
    pub path: PathBuf,
    /// What it needs beside `/usr`.
    pub prefix: Option<PathBuf>,
    pub version: String,
}

/// The system's own first: it lies below `/usr`, which every jail has.
fn candidates(language: Language, search: &OsStr) -> Vec<PathBuf> {
    let name = match language {
        Language::Python => "python3",
        Language::JavaScript => "node",
        Language::Image => return Vec::new(),
    };
    let elsewhere = std::env::split_paths(search).map(|directory| directory.join(name));
    let mut all: Vec<PathBuf> = ["/usr/bin", "/usr/local/bin"]
        .iter()
        .map(|at| Path::new(at).join(name))
        .collect();
    all.extend(elsewhere);
    all
}

/// `search` is more directories, written as in `PATH`.
pub fn find(language: Language, search: &OsStr) -> Option<Interpreter> {
    candidates(language, search)
        .into_iter()
        .filter(|path| path.is_file())
        .find_map(|path| ask(language, &path))
}

/// Two lines: the prefix and the version; the executable itself says where it really lies.
fn ask(language: Language, path: &Path) -> Option<Interpreter> {
    let (flags, question): (&[&str], &str) = match language {
        Language::Python => (
            &["-I", "-S", "-c"],
            "import sys; print(sys.executable); print(sys.base_prefix); print('Python %d.%d.%d' % sys.version_info[:3])",
        ),
        Language::Image => return None,
        Language::JavaScript => (
            &["-e"],
            "console.log(process.execPath); console.log(require('path').resolve(process.execPath, '../..')); console.log('Node.js ' + process.versions.node)",
        ),
    };
    let answer = Command::new(path)
        .args(flags)
        .arg(question)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout)
        .ok()
        .filter(|_| answer.status.success())?;
    let [executable, prefix, version] = text.lines().collect::<Vec<_>>().try_into().ok()?;
    let path = Path::new(executable).canonicalize().ok()?;
    let prefix = PathBuf::from(prefix);
    let outside = !path.starts_with("/usr") || !prefix.starts_with("/usr");
    Some(Interpreter {
        path,
        prefix: outside.then_some(prefix),
        version: version.to_owned(),
    })
}
