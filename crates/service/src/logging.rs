//! Logs: one line an event on stderr, as text or JSON.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt};

/// `LOG_LEVEL`: in any case; `warn` and `warning` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What should not.
    Warn,
    /// What must not.
    Error,
}

impl FromStr for LogLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err("one of debug, info, warn, error".to_owned()),
        }
    }
}

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// `LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Starts logging; later calls in the same process change nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    // Libraries at their own warnings: their debug output drowns ours.
    let filter = EnvFilter::new(match level {
        LogLevel::Debug => "info,vstack=debug".to_owned(),
        other => format!("warn,vstack={other}"),
    });
    let vstack = |filter: EnvFilter| {
        let level = level.to_string();
        [
            "api", "client", "engine", "media", "metadata", "node", "player", "service", "uploader", "web",
        ]
        .iter()
        .filter_map(|part| format!("vstack_{part}={level}").parse().ok())
        .fold(filter, EnvFilter::add_directive)
    };
    let subscriber = fmt().with_env_filter(vstack(filter)).with_writer(std::io::stderr);
    let ansi = std::io::stderr().is_terminal();
    // Fails only when a subscriber is installed already, as in tests that start several services in one process.
    let _already = match format {
        LogFormat::Text => subscriber.with_ansi(ansi).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}
