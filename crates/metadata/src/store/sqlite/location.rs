//! `DATABASE_URL`: where the database is.

use std::{path::PathBuf, str::FromStr};

/// A database this build can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of the embedded SQLite.
    Sqlite(PathBuf),
}

/// Why a text names no usable database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// PostgreSQL or what speaks its protocol.
    #[error("PostgreSQL is not supported by this version: give a file path or sqlite://<path>")]
    Postgres,
    /// Another kind of database.
    #[error("`{scheme}` databases are not supported: give a file path or sqlite://<path>")]
    Scheme {
        /// What stands before the colon.
        scheme: String,
    },
    /// Metadata must survive a restart.
    #[error("the database must be a file: give a path or sqlite://<path>")]
    NotAFile,
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let path = match text.split_once("://") {
            Some(("sqlite", path)) => path.split('?').next().unwrap_or(path),
            Some(("postgres" | "postgresql", _)) => return Err(DatabaseUrlError::Postgres),
            Some((scheme, _)) => return Err(DatabaseUrlError::Scheme { scheme: scheme.into() }),
            None => text.strip_prefix("sqlite:").unwrap_or(text),
        };
        if path.is_empty() || path.contains(":memory:") || path.ends_with('/') {
            return Err(DatabaseUrlError::NotAFile);
        }
        Ok(Self::Sqlite(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_sqlite_urls_name_files_and_nothing_else_is_taken() {
        let file = |path: &str| Ok(DatabaseUrl::Sqlite(path.into()));
        let table = [
            ("data/metadata.db", file("data/metadata.db")),
            ("sqlite://data/metadata.db", file("data/metadata.db")),
            ("sqlite:///var/lib/vstack/m.db?mode=rwc", file("/var/lib/vstack/m.db")),
            ("sqlite:m.db", file("m.db")),
            ("postgres://user@host/db", Err(DatabaseUrlError::Postgres)),
            ("postgresql://host/db", Err(DatabaseUrlError::Postgres)),
            (
                "mysql://host/db",
                Err(DatabaseUrlError::Scheme { scheme: "mysql".into() }),
            ),
            ("sqlite::memory:", Err(DatabaseUrlError::NotAFile)),
            ("sqlite://", Err(DatabaseUrlError::NotAFile)),
            ("", Err(DatabaseUrlError::NotAFile)),
            ("data/", Err(DatabaseUrlError::NotAFile)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<DatabaseUrl>(), expected, "{text}");
        }
    }
}
