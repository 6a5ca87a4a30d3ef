//! What to start, with which settings: a table, made without starting anything.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rand::RngExt as _;

use super::{Options, ports::Ports};

/// How the names of storage nodes begin.
pub const NODE_NAME: &str = "storage-node-";

/// One service to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `storage-node-1`.
    pub name: String,
    /// `storage-node`.
    pub subcommand: &'static str,
    /// `http://127.0.0.1:8081`.
    pub url: String,
    /// Its settings.
    pub env: Vec<(&'static str, String)>,
}

/// Where a cluster's services are.
#[derive(Debug, Clone)]
pub struct Urls {
    pub metadata: String,
    pub uploader: String,
    pub web_public: String,
    /// By name, in the order they are started.
    pub all: Vec<(String, String)>,
}

/// Services reach each other over this machine's own address, whatever else they listen on.
fn inner_host(options: &Options) -> String {
    if options.bind_address.is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        host(&options.bind_address.to_string())
    }
}

fn public_host(options: &Options) -> String {
    options
        .public_host
        .clone()
        .map_or_else(|| inner_host(options), |name| host(&name))
}

/// IPv6 addresses stand in brackets in a URL.
fn host(name: &str) -> String {
    if name.contains(':') && !name.starts_with('[') {
        format!("[{name}]")
    } else {
        name.to_owned()
    }
}

impl Urls {
    /// Of the cluster that [`cluster`] plans.
    pub fn of(options: &Options, ports: &Ports) -> Self {
        let url = |port: u16| format!("http://{}:{port}", inner_host(options));
        let mut all = vec![("metadata".to_owned(), url(ports.metadata))];
        all.extend(
            ports
                .nodes
                .iter()
                .enumerate()
                .map(|(at, port)| (format!("{NODE_NAME}{}", at + 1), url(*port))),
        );
        for (name, port) in [
            ("uploader", ports.uploader),
            ("web", ports.web),
            ("client", ports.client),
        ] {
            all.push((name.to_owned(), url(port)));
        }
        Self {
            metadata: url(ports.metadata),
            uploader: url(ports.uploader),
            web_public: format!("http://{}:{}", public_host(options), ports.web),
            all,
        }
    }
}

/// The table of a cluster's services, in the order they are started.
pub fn cluster(options: &Options, data: &Path, ports: &Ports, secret: &Path) -> Vec<Service> {
    let urls = Urls::of(options, ports);
    let node_urls: Vec<_> = ports
        .nodes
        .iter()
        .map(|port| format!("http://{}:{port}", inner_host(options)))
        .collect();
    let path = |name: &str| data.join(name).to_string_lossy().into_owned();
    let shared = |port: u16| {
        vec![
            ("BIND_ADDRESS", options.bind_address.to_string()),
            ("PORT", port.to_string()),
            ("CLUSTER_SECRET_FILE", secret.to_string_lossy().into_owned()),
        ]
    };
    let mut services = vec![Service {
        name: "metadata".to_owned(),
        subcommand: "metadata",
        url: urls.metadata.clone(),
        env: with(shared(ports.metadata), [("DATABASE_URL", path("metadata.db"))]),
    }];
    for (at, port) in ports.nodes.iter().enumerate() {
        let name = format!("{NODE_NAME}{}", at + 1);
        let settings = [
            ("NODE_ID", name.clone()),
            ("NODE_URL", node_urls[at].clone()),
            ("NODE_PUBLIC_URL", format!("http://{}:{port}", public_host(options))),
            ("DATA_DIR", path(&format!("nodes/{name}"))),
            ("METADATA_SERVICE_URL", urls.metadata.clone()),
            ("CORS_ORIGINS", web_origins(options, ports.web)),
        ];
        services.push(Service {
            name,
            subcommand: "storage-node",
            url: node_urls[at].clone(),
            env: with(shared(*port), settings),
        });
    }
    let at = |port: u16| format!("http://{}:{port}", inner_host(options));
    services.push(Service {
        name: "uploader".to_owned(),
        subcommand: "uploader",
        url: urls.uploader.clone(),
        env: with(
            shared(ports.uploader),
            [
                ("METADATA_SERVICE_URL", urls.metadata.clone()),
                ("TEMP_DIR", path("uploads")),
            ],
        ),
    });
    let mut web = with(
        shared(ports.web),
        [
            ("DEMO_PORT", ports.web.to_string()),
            ("METADATA_SERVICE_URL", urls.metadata.clone()),
            ("UPLOADER_SERVICE_URL", urls.uploader.clone()),
            ("CLIENT_DASHBOARD_URL", at(ports.client)),
        ],
    );
    for (variable, url) in ["STORAGE_NODE_1_URL", "STORAGE_NODE_2_URL", "STORAGE_NODE_3_URL"]
        .into_iter()
        .zip(&node_urls)
    {
        web.push((variable, url.clone()));
    }
    services.push(Service {
        name: "web".to_owned(),
        subcommand: "web",
        url: at(ports.web),
        env: web,
    });
    services.push(Service {
        name: "client".to_owned(),
        subcommand: "client",
        url: at(ports.client),
        env: with(shared(ports.client), [("METADATA_SERVICE_URL", urls.metadata.clone())]),
    });
    services
}

fn with<const N: usize>(
    mut env: Vec<(&'static str, String)>,
    more: [(&'static str, String); N],
) -> Vec<(&'static str, String)> {
    env.extend(more);
    env
}

/// The origins a page of this cluster may have.
fn web_origins(options: &Options, port: u16) -> String {
    if let Ok(configured) = std::env::var("CORS_ORIGINS") {
        return configured;
    }
    let mut hosts = vec![
        public_host(options),
        inner_host(options),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    hosts.dedup();
    let origins: Vec<_> = hosts.into_iter().map(|host| format!("http://{host}:{port}")).collect();
    origins.join(",")
}

/// The file with the cluster's secret, made on first use, readable by its owner alone.
pub fn secret_file(data: &Path) -> anyhow::Result<PathBuf> {
    let path = data.join("cluster-secret");
    if path.exists() {
        return Ok(path);
    }
    let secret: [u8; 32] = rand::rng().random();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let temporary = data.join("cluster-secret.new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        writeln!(file, "{hex}")?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
