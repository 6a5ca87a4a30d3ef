//! `cluster.json`: what runs, for `vstack logs` and for tools that look from outside.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A cluster as its supervisor sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Process id of the supervisor.
    pub pid: u32,
    /// In the order they are started.
    pub services: Vec<ServiceState>,
}

/// One service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceState {
    /// `storage-node-1`.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Its log.
    pub log: PathBuf,
}

impl State {
    fn path(data: &Path) -> PathBuf {
        data.join("cluster.json")
    }

    /// Reads what the last supervisor wrote.
    pub fn load(data: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(Self::path(data))?;
        serde_json::from_slice(&text).with_context(|| format!("{} cannot be read", Self::path(data).display()))
    }

    /// Replaces the file in one step, so that a reader never sees half of it.
    pub fn save(&self, data: &Path) -> anyhow::Result<()> {
        let temporary = data.join("cluster.json.new");
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(temporary, Self::path(data))?;
        Ok(())
    }

    /// The port a service had.
    pub fn port_of(&self, name: &str) -> Option<u16> {
        let service = self.services.iter().find(|service| service.name == name)?;
        service.url.rsplit(':').next()?.parse().ok()
    }
}
