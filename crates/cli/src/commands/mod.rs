//! The tools for a cluster, one file each.

pub mod census;
mod consent;
mod figures;
pub mod logs;
pub mod ls;
pub mod membership;
pub mod node;
pub mod orphans;
pub mod redundancy;
pub mod repairs;
pub mod rm;
pub mod status;
mod survival;
pub mod upload;
mod waiting;

use std::collections::BTreeMap;

use vstack_api::metadata::NodeInfo;
use vstack_client::{HttpClient, MetadataClient, NodeClient, Timeouts, UploaderClient};

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
pub struct Cluster {
    /// Metadata service; several replicas separated by commas.
    #[arg(
        long,
        env = "METADATA_SERVICE_URL", value_parser = vstack_service::settings::urls,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub metadata_url: String,
}

impl Cluster {
    fn metadata(&self) -> anyhow::Result<MetadataClient> {
        Ok(MetadataClient::new(
            HttpClient::new(None, Timeouts::default())?,
            &self.metadata_url,
        ))
    }
}

/// Labels of the nodes in each zone; of those without one, under an empty name. None where no node has one.
fn by_zone<'a>(nodes: impl IntoIterator<Item = &'a NodeInfo>) -> Option<BTreeMap<&'a str, Vec<&'a str>>> {
    let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        zones.entry(&node.zone).or_default().push(&node.node_id);
    }
    zones.keys().any(|zone| !zone.is_empty()).then_some(zones)
}

fn node_client() -> anyhow::Result<NodeClient> {
    Ok(NodeClient::new(HttpClient::new(None, Timeouts::default())?))
}

fn uploader(url: &str) -> anyhow::Result<UploaderClient> {
    Ok(UploaderClient::new(HttpClient::new(None, Timeouts::default())?, url))
}
