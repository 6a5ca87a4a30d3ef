//! Storage nodes that a test kills, and starts again when it wants to: those of a cluster that leaves alone who died.

use std::{collections::BTreeMap, path::Path};

use super::{Cluster, service::Service, wait_for};

/// The storage nodes of a cluster that was started with `--no-restart`. Those that were started again end with it.
pub struct Nodes<'a> {
    cluster: &'a Cluster,
    /// Of the cluster: what its supervisor handed on, and hands on to nobody who is started here.
    settings: Vec<(&'a str, &'a str)>,
    secret: String,
    /// Started here.
    again: BTreeMap<String, Service>,
}

impl<'a> Nodes<'a> {
    /// With the settings that the cluster was started with.
    pub fn of(cluster: &'a Cluster, settings: &[(&'a str, &'a str)]) -> Self {
        let secret = std::fs::read_to_string(cluster.data().join("cluster-secret")).expect("the cluster's secret");
        Self {
            cluster,
            settings: settings.to_vec(),
            secret: secret.trim().to_owned(),
            again: BTreeMap::new(),
        }
    }

    /// Their labels, in order.
    pub fn names(&self) -> Vec<String> {
        let names = self.cluster.names().into_iter();
        names.filter(|name| name.starts_with("storage-node-")).collect()
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&mut self, name: &str) {
        // Who was started here is killed when it is dropped.
        if self.again.remove(name).is_some() {
            return;
        }
        assert!(self.cluster.kill(name), "{name} does not run");
        wait_for(&format!("{name} to be gone"), || {
            self.cluster.pid(name).is_none().then_some(())
        });
    }

    /// On the disk it had, at the address it had; does not wait for it.
    pub fn start(&mut self, name: &str) {
        let data = self.cluster.data();
        let (url, metadata) = (self.cluster.url(name), self.cluster.url("metadata"));
        let port = url.rsplit(':').next().expect("a URL with a port").to_owned();
        let text = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        let directory = text(&data.join("nodes").join(name));
        let own = [
            ("NODE_ID", name),
            ("PORT", &port),
            ("NODE_URL", &url),
            ("DATA_DIR", &directory),
            ("METADATA_SERVICE_URL", &metadata),
            // As all nodes of tests have it, unless the settings say otherwise.
            ("MAX_SUPERBLOCK_SIZE", "67108864"),
        ];
        let env: Vec<(&str, &str)> = own.into_iter().chain(self.settings.iter().copied()).collect();
        let log = data.join("logs").join(format!("{name}.log"));
        let service = Service::start("storage-node", &log, &self.secret, &env);
        self.again.insert(name.to_owned(), service);
    }

    /// The same for some of them, and waits until each answers.
    pub fn start_and_wait(&mut self, names: &[&str]) {
        for name in names {
            self.start(name);
        }
        for name in names {
            self.cluster.wait_up(name);
        }
    }
}
