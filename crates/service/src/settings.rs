//! Settings every service has. Each is a flag, an environment variable and a key of the configuration file.

use std::{net::IpAddr, path::PathBuf};

use vstack_api::auth::{ClusterSecret, SecretError};

use crate::{LogFormat, LogLevel};

/// Where a service listens, how it logs, and the secret it shares with the others.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Address to listen on; 0.0.0.0 lets other machines in.
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1", value_name = "IP")]
    pub bind_address: IpAddr,
    /// Least important messages to log: debug, info, warn or error.
    #[arg(long, env = "LOG_LEVEL", default_value_t, value_name = "LEVEL")]
    pub log_level: LogLevel,
    /// How log lines are written.
    #[arg(
        long,
        env = "LOG_FORMAT",
        default_value = "text",
        ignore_case = true,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// Secret the services of a cluster share, 16 characters or more.
    #[arg(
        long,
        env = "CLUSTER_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        conflicts_with = "cluster_secret_file"
    )]
    pub cluster_secret: Option<String>,
    /// File that holds the secret.
    #[arg(long, env = "CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
}

/// Reads `http://HOST[:PORT]`, as a value parser; a slash at the end is dropped.
///
/// # Errors
/// When it is something else.
pub fn url(text: &str) -> Result<String, String> {
    let trimmed = text.trim().trim_end_matches('/');
    let host = trimmed
        .strip_prefix("http://")
        .or_else(|| trimmed.strip_prefix("https://"));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    match host {
        Some(host) if !host.is_empty() && host.chars().all(allowed) => Ok(trimmed.to_owned()),
        _ => Err("a URL such as http://host:8080, without a path".to_owned()),
    }
}

/// Reads one or several [`url`]s with commas between them.
///
/// # Errors
/// When one of them is something else.
pub fn urls(text: &str) -> Result<String, String> {
    let urls: Result<Vec<_>, _> = text.split(',').map(url).collect();
    urls.map(|urls| urls.join(","))
}

/// Reads an origin as browsers send it, or `*` for any.
///
/// # Errors
/// When it is neither.
pub fn origin(text: &str) -> Result<String, String> {
    if text.trim() == "*" {
        Ok("*".to_owned())
    } else {
        url(text)
    }
}

/// Why the cluster secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretSettingError {
    /// The file cannot be read.
    #[error("cannot read the cluster secret from {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Too short or too long.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Common {
    /// The cluster secret, when one is set.
    ///
    /// # Errors
    /// When the file cannot be read or the secret is too short.
    pub fn secret(&self) -> Result<Option<ClusterSecret>, SecretSettingError> {
        if let Some(secret) = &self.cluster_secret {
            return Ok(Some(secret.parse()?));
        }
        let Some(path) = &self.cluster_secret_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| SecretSettingError::Read {
            path: path.clone(),
            source,
        })?;
        Ok(Some(text.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_where_they_are_given() {
        assert_eq!(url("http://a:1/"), Ok("http://a:1".to_owned()));
        assert_eq!(
            urls("http://a:1, https://[::1]:2"),
            Ok("http://a:1,https://[::1]:2".to_owned())
        );
        assert_eq!(origin("*"), Ok("*".to_owned()));
        for bad in [
            "",
            "a",
            "nope:1",
            "http://",
            "http://a b",
            "http://a/path",
            "http://u@a",
            "http://a,",
        ] {
            assert!(urls(bad).is_err() && origin(bad).is_err(), "{bad}");
        }
    }
}
