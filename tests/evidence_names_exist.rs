//! `docs/evidence.md` names tests: each of them is there.

use std::{collections::BTreeMap, fs, path::Path};

/// Every source file below `directory`, by its path from `root`.
fn collect(root: &Path, directory: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["node_modules", "target", "dist"].contains(&name.as_str()) {
                collect(root, &path, sources);
            }
        } else if [".rs", ".mjs", ".ts"].iter().any(|end| name.ends_with(end)) {
            let inner = path.strip_prefix(root).expect("below the root");
            let text = fs::read_to_string(&path).expect("source is text");
            sources.insert(inner.to_string_lossy().into_owned(), text);
        }
    }
}

/// What is wrong with a name between backticks, if it is one of a test or a file.
fn complaint(name: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let is_file = |name: &str| [".rs", ".mjs", ".ts"].iter().any(|end| name.ends_with(end));
    let (file, test) = match name.split_once(": ") {
        Some((file, test)) if is_file(file) => (file, Some(test)),
        None if is_file(name) => (name, None),
        None if name.len() > 20
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') =>
        {
            let is_there = sources.values().any(|text| text.contains(&format!("fn {name}(")));
            return (!is_there).then(|| format!("no test is called {name}"));
        }
        _ => return None,
    };
    let mut files = sources.iter().filter(|(path, _)| path.ends_with(file)).peekable();
    if files.peek().is_none() {
        return Some(format!("there is no {file}"));
    }
    // Names of tests in other languages may be shortened.
    let test = test.filter(|test| file.ends_with(".rs") && !test.contains('…'))?;
    let is_there = files.any(|(_, text)| text.contains(&format!("fn {test}(")));
    (!is_there).then(|| format!("{file} has no {test}"))
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = BTreeMap::new();
    for directory in ["crates", "tests", "web/src", "fuzz"] {
        collect(&root, &root.join(directory), &mut sources);
    }
    let evidence = fs::read_to_string(root.join("docs/evidence.md")).expect("the document");
    // What stands between the first and the second backtick, the third and the fourth, and so on.
    let names: Vec<_> = evidence.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 100, "found {} names", names.len());
    let complaints: Vec<_> = names.iter().filter_map(|name| complaint(name, &sources)).collect();
    assert!(complaints.is_empty(), "docs/evidence.md:\n{}", complaints.join("\n"));
    assert!(complaint("there_is_no_test_of_this_name", &sources).is_some());
    assert!(complaint("crates/sim/src/no_such_file.rs", &sources).is_some());
}
