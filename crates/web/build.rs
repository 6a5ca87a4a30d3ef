//! Puts the page where it is embedded from: `web/dist` as `npm run build` made it, or, so that the service compiles
//! without Node.js, one page that says how to build the real one.

use std::{env, fs, io, path::Path};

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
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let dist = Path::new(&root).join("../../web/dist");
    let page = Path::new(&out).join("page");
    println!("cargo:rerun-if-changed=build.rs");
    // The index names every hashed asset, so it changes with each of them. While it is missing, cargo looks again at
    // every build.
    println!("cargo:rerun-if-changed={}", dist.join("index.html").display());
    if page.exists() {
        fs::remove_dir_all(&page)?;
    }
    if dist.join("index.html").is_file() { copy_tree(&dist, &page) } else { write_placeholder(&page) }
}

fn write_placeholder(page: &Path) -> io::Result<()> {
    fs::create_dir_all(page)?;
    fs::write(page.join("index.html"), MISSING)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy_tree(&entry.path(), &target)? } else { fs::write(&target, fs::read(entry.path())?)? }
    }
    Ok(())
}
