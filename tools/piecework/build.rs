//! Packs the interpreters of the wasm sandbox, the translator of TypeScript and the portal into the executable, so that a copy of it
//! works anywhere.
//!
//! They come from `runtimes/build.sh` and `portal/build.sh`. Without them the build works, and says what is missing.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// A tenth less than at 9, in ten seconds; the highest levels take twice as long for 3 % more.
const LEVEL: i32 = 17;

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).expect("cargo sets it");
    let root = variable("CARGO_MANIFEST_DIR").join("../..");
    let built = root.join("runtimes/build");
    let out = variable("OUT_DIR");
    fs::write(out.join("portal.rs"), portal(&root.join("portal/build"))?)?;
    println!("cargo:rerun-if-changed=build.rs");
    let mut code = String::new();
    for file in ["python.wasm", "javascript.wasm", "typescript.mjs"] {
        let component = built.join(file);
        println!("cargo:rerun-if-changed={}", component.display());
        let packed = match component.is_file() {
            true if file.ends_with(".wasm") => format!("Some(include_bytes!({:?}))", pack(&component, &out)?),
            // It is small.
            true => format!("Some(include_bytes!({:?}))", component.canonicalize()?),
            false => {
                println!("cargo:warning=built without {file}: run runtimes/build.sh, then build again");
                "None".to_owned()
            }
        };
        let name = component
            .file_stem()
            .expect("it has a name")
            .to_string_lossy()
            .to_uppercase();
        code += &format!("pub const {name}: Option<&[u8]> = {packed};\n");
    }
    fs::write(out.join("interpreters.rs"), code)
}

/// The portal's files, as `portal/tools/pack.mjs` lists them: a line for each, with name, content type and `ETag`, which follow
/// its rules.
fn portal(built: &Path) -> io::Result<String> {
    let list = built.join("files.txt");
    println!("cargo:rerun-if-changed={}", list.display());
    let mut code = String::from("pub const FILES: &[piecework_controller::PortalFile] = &[\n");
    if list.is_file() {
        for line in fs::read_to_string(&list)?.lines() {
            let [name, content_type, etag] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(io::Error::other(format!(
                    "portal/build/files.txt has the line {line:?}"
                )));
            };
            let packed = |suffix: &str| built.join("packed").join(format!("{name}.{suffix}")).canonicalize();
            let (gzip, brotli) = (packed("gz")?, packed("br")?);
            code += &format!(
                "piecework_controller::PortalFile {{ name: {name:?}, content_type: {content_type:?}, etag: {etag:?}, \
                 gzip: include_bytes!({gzip:?}), brotli: include_bytes!({brotli:?}) }},\n"
            );
        }
    } else {
        println!("cargo:warning=built without the portal: run portal/build.sh, then build again");
    }
    Ok(code + "];\n")
}

/// Where the compressed component lies.
fn pack(component: &Path, out: &Path) -> io::Result<PathBuf> {
    let packed = out
        .join(component.file_name().expect("it has a name"))
        .with_extension("wasm.zst");
    zstd::stream::copy_encode(fs::File::open(component)?, fs::File::create(&packed)?, LEVEL)?;
    Ok(packed)
}
