//! `docs/settings.md` has every setting of every service, as the command line has it, and no other.

use std::fmt::Write as _;

use clap::{Arg, Args as _, Command, CommandFactory as _};

const DOCUMENT: &str = include_str!("../../../docs/settings.md");

const SERVICES: [&str; 5] = ["metadata", "storage-node", "uploader", "web", "client"];

const HEAD: &str = "| flag | variable | default | unit | meaning |\n|---|---|---|---|---|\n";

fn help_of(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

/// What a number counts; nothing where it is a name, an address or a path.
fn unit(argument: &Arg) -> &'static str {
    let names = argument.get_value_names().unwrap_or_default();
    match names.first().map(clap::builder::Str::as_str) {
        Some("SECONDS") => "s",
        Some("BYTES") if help_of(argument).contains("a second") => "bytes/s",
        Some("BYTES") => "bytes",
        Some("NUMBER" | "COUNT" | "COPIES" | "SHARDS" | "VIEWS") => "number",
        _ => "",
    }
}

/// The default in a unit that is read more easily, where it has one.
fn in_other_words(number: u64, unit: &str) -> Option<String> {
    let larger: &[(u64, &str)] = match unit {
        "bytes" | "bytes/s" => &[(1 << 30, "GiB"), (1 << 20, "MiB")],
        "s" => &[(86_400, "d"), (3_600, "h")],
        _ => &[],
    };
    let (size, name) = larger
        .iter()
        .find(|(size, _)| number >= *size && number.is_multiple_of(*size))?;
    Some(format!(" ({} {name})", number / size))
}

fn default_of(argument: &Arg) -> String {
    let values: Vec<_> = argument.get_default_values().iter().collect();
    let text: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
    let text = text.join(",");
    if text.is_empty() {
        return "none".to_owned();
    }
    let words = text
        .parse()
        .ok()
        .and_then(|number| in_other_words(number, unit(argument)));
    format!("`{text}`{}", words.unwrap_or_default())
}

/// A row for each setting of `command`, without those of `others`.
fn table(command: &Command, others: Option<&Command>) -> String {
    let mut rows = HEAD.to_owned();
    let is_other = |argument: &Arg| {
        let mut arguments = others.iter().flat_map(|others| others.get_arguments());
        arguments.any(|other| other.get_id() == argument.get_id())
    };
    for argument in command.get_arguments() {
        // `--help` and what else clap adds is no setting.
        let Some(flag) = argument
            .get_long()
            .filter(|_| argument.get_action().takes_values() && !argument.is_global_set() && !is_other(argument))
        else {
            continue;
        };
        let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable"));
        writeln!(
            rows,
            "| `--{flag}` | `{}` | {} | {} | {} |",
            variable.to_string_lossy(),
            default_of(argument),
            unit(argument),
            help_of(argument).replace('|', "\\|"),
        )
        .unwrap();
    }
    rows
}

/// The table behind a heading.
fn documented(heading: &str) -> String {
    let (_, section) = DOCUMENT
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("docs/settings.md has no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| format!("{row}\n")).collect()
}

#[test]
fn every_setting_of_every_service_is_documented() {
    let common = vstack_service::Common::augment_args(Command::new("common"));
    let all = crate::Cli::command();
    let mut expected = vec![("Every service".to_owned(), table(&common, None))];
    for name in SERVICES {
        let service = all.find_subcommand(name).unwrap();
        expected.push((format!("`vstack {name}`"), table(service, Some(&common))));
    }
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(heading, table)| documented(heading) != *table)
        .map(|(heading, table)| format!("## {heading}\n\n{table}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "docs/settings.md should have:\n\n{}",
        wrong.join("\n")
    );
    assert_eq!(DOCUMENT.matches("\n## ").count(), expected.len());
}
