//! Makes the page a table in the binary: `web/dist` as `npm run build` left it, or, so that the service compiles without
//! Node.js, one page that says how to build the real one.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

const MISSING: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>V-Stack</title>
<h1>The page is not part of this build</h1>
<p>Run <code>npm ci &amp;&amp; npm run build</code> in <code>web/</code>, then build the binary again.
The API under <code>/api</code>, the streams under <code>/hls</code> and the downloads work all the same.</p>
";

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let dist = Path::new(&root).join("../../web/dist");
    println!("cargo:rerun-if-changed=build.rs");
    // While the folder is missing, cargo looks again at every build.
    println!("cargo:rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        collect(&fs::canonicalize(dist)?, "", &mut files)?;
    } else {
        let placeholder = out.join("index.html");
        fs::write(&placeholder, MISSING)?;
        files.push(("index.html".to_owned(), placeholder));
    }
    files.sort();
    fs::write(out.join("files.rs"), table(&files))
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().display());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}

fn table(files: &[(String, PathBuf)]) -> String {
    let mut text = "&[\n".to_owned();
    for (name, path) in files {
        let _infallible = writeln!(
            text,
            "    ({name:?}, include_bytes!({:?})),",
            path.display().to_string()
        );
    }
    text.push_str("]\n");
    text
}
