//! `docs/evidence.md` names tests: each of them is there, in Rust, in JavaScript and in TypeScript.

use std::{collections::BTreeMap, fs, path::Path};

/// Ends of names of files with tests.
const ENDS: [&str; 3] = [".rs", ".mjs", ".ts"];
/// In a name, for what is left out of it.
const LEFT_OUT: char = '…';

fn is_source(name: &str) -> bool {
    ENDS.iter().any(|end| name.ends_with(end))
}

/// Every source file below `directory`, by its path from `root`.
fn collect(root: &Path, directory: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["node_modules", "target", "dist"].contains(&name.as_str()) {
                collect(root, &path, sources);
            }
        } else if is_source(&name) {
            let inner = path.strip_prefix(root).expect("below the root");
            let text = fs::read_to_string(&path).expect("source is text");
            sources.insert(inner.to_string_lossy().into_owned(), text);
        }
    }
}

/// The names of functions in Rust.
fn functions(text: &str) -> Vec<String> {
    let is_of_name = |c: &char| c.is_alphanumeric() || *c == '_';
    let name = |rest: &str| rest.chars().take_while(is_of_name).collect::<String>();
    text.split("fn ").skip(1).map(name).collect()
}

/// The titles of tests in JavaScript and TypeScript: `it('…')`, `test('…')`, and those of tables, `it.each(…)('…')`.
fn titles(text: &str) -> Vec<String> {
    let title = |(at, _): (usize, &str)| {
        let (before, after) = (&text[..at], text[at + 1..].trim_start());
        let is_call = |name: &str| {
            let other = |c: char| c.is_alphanumeric() || "_.$".contains(c);
            before.strip_suffix(name).is_some_and(|rest| !rest.ends_with(other))
        };
        let is_test = is_call("it") || is_call("test") || before.ends_with(')');
        after.strip_prefix('\'').filter(|_| is_test).map(until_quote)
    };
    text.match_indices('(').filter_map(title).collect()
}

/// Up to the quote that ends it.
fn until_quote(text: &str) -> String {
    let mut title = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\'' => break,
            '\\' => title.extend(characters.next()),
            c => title.push(c),
        }
    }
    title
}

/// Whether a test is the one that is named, where a part of its name may be left out.
fn is_named(test: &str, name: &str) -> bool {
    let Some((first, others)) = name.split_once(LEFT_OUT) else {
        return test == name;
    };
    let Some(mut rest) = test.strip_prefix(first.trim_end()) else {
        return false;
    };
    let mut others: Vec<&str> = others.split(LEFT_OUT).map(str::trim).collect();
    let last = others.pop().unwrap_or_default();
    for part in others {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// What is wrong with the name of a test in a file, which may be told by the end of its path. The tests of a module are its
/// own, also where they have a file beside it.
fn complaint_about(file: &str, test: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let module = file.strip_suffix(".rs");
    let beside = module.map(|module| format!("{module}/tests.rs"));
    let tests: fn(&str) -> Vec<String> = if module.is_some() { functions } else { titles };
    let is_it = |path: &str| path.ends_with(file) || beside.as_ref().is_some_and(|beside| path.ends_with(beside));
    let mut files = sources.iter().filter(|(path, _)| is_it(path));
    let is_there = files.any(|(_, text)| tests(text).iter().any(|one| is_named(one, test)));
    (!is_there).then(|| format!("{file} has no test {test:?}"))
}

/// What is wrong with a name between backticks, if it is one of a test or a file.
fn complaint(name: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let (file, test) = match name.split_once(": ") {
        Some((file, test)) if is_source(file) => (file, Some(test)),
        None if is_source(name) => (name, None),
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
    if !sources.keys().any(|path| path.ends_with(file)) {
        return Some(format!("there is no {file}"));
    }
    complaint_about(file, test?, sources)
}

/// What stands between the first and the second backtick, the third and the fourth, and so on.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The last cell of each row of a table: where a promise is shown.
fn shown_by(document: &str) -> impl Iterator<Item = &str> {
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'));
    rows.filter_map(|row| row.rsplit(" | ").next())
}

/// What is wrong with names that stand alone behind one that says their file: of tests that are told by sentences, and of
/// those that leave out a part.
fn complaints_about_others(cell: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut last = None;
    for name in names(cell) {
        let file = name.split_once(": ").map_or(name, |(file, _)| file);
        if is_source(file) {
            last = Some(file);
        } else if let Some(file) = last
            && (name.contains(LEFT_OUT) || (!file.ends_with(".rs") && name.contains(' ')))
        {
            complaints.extend(complaint_about(file, name, sources));
        }
    }
    complaints
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = BTreeMap::new();
    for directory in ["crates", "tests", "web/src", "fuzz"] {
        collect(&root, &root.join(directory), &mut sources);
    }
    let evidence = fs::read_to_string(root.join("docs/evidence.md")).expect("the document");
    let named = names(&evidence).count();
    assert!(named > 100, "found {named} names");
    let mut complaints: Vec<_> = names(&evidence).filter_map(|name| complaint(name, &sources)).collect();
    complaints.extend(shown_by(&evidence).flat_map(|cell| complaints_about_others(cell, &sources)));
    assert!(complaints.is_empty(), "docs/evidence.md:\n{}", complaints.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let script = "describe('a thing', () => {\n  it('says \\'yes\\', twice', () => {});\n  wait('for it');\n\
                  it.each([{ kind: 'slow' }] as Kind[])(\n    'leaves a $kind one for another', () => {});\n});\n";
    let sources = BTreeMap::from([
        file(
            "crates/a/src/job.rs",
            "fn a_long_name_of_a_test() {}\nasync fn another_of_them<T>() {}\n",
        ),
        file("crates/a/src/job/tests.rs", "fn beside_its_module() {}\n"),
        file("web/src/b.test.ts", script),
        file(
            "tests/browser/c.test.mjs",
            "test('upload, watch, kill a node: it plays on', f);\n",
        ),
    ]);
    for good in [
        "job.rs: a_long_name_of_a_test",
        "crates/a/src/job.rs: another_of_them",
        "crates/a/src/job.rs: beside_its_module",
        "job.rs: a_long_name…",
        "job.rs: …of_a_test",
        "a_long_name_of_a_test",
        "b.test.ts",
        "b.test.ts: says 'yes', twice",
        "b.test.ts: leaves a … one for another",
        "c.test.mjs: upload, watch, …",
        "c.test.mjs: upload, … a node: it plays on",
        "GET /chunk/{id}: no test",
    ] {
        assert_eq!(complaint(good, &sources), None, "{good}");
    }
    for bad in [
        "job.rs: a_long_name",
        "job.rs: nothing…",
        "there_is_no_test_of_this_name",
        "crates/a/src/no_such_file.rs",
        "b.test.ts: says yes, twice",
        "b.test.ts: a thing",
        "b.test.ts: for it",
        "c.test.mjs: upload",
        "c.test.mjs: upload … plays off",
        "c.test.mjs: … plays",
    ] {
        assert!(complaint(bad, &sources).is_some(), "{bad}");
    }
    let cell = " `c.test.mjs: upload, …`, `upload, watch, kill a node: it plays on`, `nothing like it`, `word` · \
                `job.rs: a_long_name…`, `…of_a_test`, `…of_none`, `something else`";
    assert_eq!(
        complaints_about_others(cell, &sources),
        [
            "c.test.mjs has no test \"nothing like it\"",
            "job.rs has no test \"…of_none\""
        ]
    );
    let table = "| promise | shown by |\n|---|---|\n| `a` is so | `b` · `c` |\nno row `d`\n";
    let last = shown_by(table).last().expect("a row");
    assert_eq!(names(last).collect::<Vec<_>>(), ["b", "c"]);
}
