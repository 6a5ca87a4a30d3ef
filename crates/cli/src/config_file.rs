//! The configuration file: keys of a TOML file become flags, unless the flag or its environment variable is set.
//!
//! Done on the argument list, before clap reads it, so that a value from a file is checked exactly as one typed.

use std::ffi::OsString;

use anyhow::{Context as _, bail};
use clap::Command;

/// Reads `--config FILE` out of `arguments`, if it is there, and inserts the file's settings after the subcommand.
pub fn merge(command: Command, arguments: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let Some(path) = config_path(&arguments) else {
        return Ok(arguments);
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.to_string_lossy()))?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("{} is not TOML", path.to_string_lossy()))?;
    let subcommand = arguments.iter().enumerate().skip(1).find_map(|(at, argument)| {
        command
            .find_subcommand(argument.to_str()?)
            .map(|found| (at, found.clone()))
    });
    let Some((at, subcommand)) = subcommand else {
        return Ok(arguments);
    };
    let mut merged = arguments[..=at].to_vec();
    for (key, value) in &table {
        if let Some(flag) = flag_for(&subcommand, key, value, &arguments)? {
            merged.extend(flag);
        }
    }
    merged.extend_from_slice(&arguments[at + 1..]);
    Ok(merged)
}

fn config_path(arguments: &[OsString]) -> Option<OsString> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().cloned();
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn flag_for(
    subcommand: &Command,
    key: &str,
    value: &toml::Value,
    arguments: &[OsString],
) -> anyhow::Result<Option<Vec<OsString>>> {
    let name = key.to_ascii_lowercase().replace('_', "-");
    let flag = format!("--{name}");
    let Some(known) = subcommand
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name.as_str()))
    else {
        let names: Vec<_> = subcommand
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .map(|long| long.replace('-', "_"))
            .collect();
        bail!(
            "the configuration file has an unknown key `{key}`; `{}` knows {}",
            subcommand.get_name(),
            names.join(", ")
        );
    };
    let given = arguments.iter().any(|argument| {
        argument
            .to_str()
            .is_some_and(|text| text == flag || text.starts_with(&format!("{flag}=")))
    });
    if given
        || known
            .get_env()
            .is_some_and(|variable| std::env::var_os(variable).is_some())
    {
        return Ok(None);
    }
    let value = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(true) if !known.get_action().takes_values() => return Ok(Some(vec![flag.into()])),
        toml::Value::Boolean(false) if !known.get_action().takes_values() => return Ok(None),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            texts
                .with_context(|| format!("`{key}` must be a list of texts"))?
                .join(",")
        }
        _ => bail!("`{key}` has a value of a kind no setting has"),
    };
    Ok(Some(vec![format!("{flag}={value}").into()]))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn merged(file: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        let directory = std::env::temp_dir().join(format!(
            "vstack-config-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("vstack.toml");
        std::fs::write(&path, file)?;
        let command = Command::new("vstack").subcommand(
            Command::new("serve")
                .arg(Arg::new("port").long("port"))
                .arg(Arg::new("data-dir").long("data-dir").env("VSTACK_TEST_UNSET"))
                .arg(Arg::new("path").long("path").env("PATH"))
                .arg(Arg::new("quick").long("quick").action(clap::ArgAction::SetTrue)),
        );
        let mut all: Vec<OsString> = vec!["vstack".into(), "--config".into(), path.into()];
        all.extend(arguments.iter().map(OsString::from));
        let merged = merge(command, all);
        std::fs::remove_dir_all(&directory)?;
        Ok(merged?
            .into_iter()
            .skip(3)
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect())
    }

    #[test]
    fn a_file_fills_in_what_neither_flags_nor_environment_say() {
        let file = "port = 1\ndata_dir = \"/d\"\npath = \"nowhere\"\nquick = true\n";
        assert_eq!(
            merged(file, &["serve", "--port", "2"]).unwrap(),
            ["serve", "--data-dir=/d", "--quick", "--port", "2"]
        );
    }

    #[test]
    fn an_unknown_key_stops_the_start() {
        let error = merged("prot = 1\n", &["serve"]).unwrap_err().to_string();
        assert!(error.contains("`prot`") && error.contains("port"), "{error}");
        assert!(merged("port = {}\n", &["serve"]).is_err());
        assert!(merged("port", &["serve"]).is_err());
    }
}
