//! Where the shards of a film are, by its manifest, and what of them is left when nodes are missed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::shared::Filled;

/// A chunk in shards.
#[derive(Debug, Clone)]
pub struct Coded {
    pub id: String,
    pub data: usize,
    pub parity: usize,
    /// The label of the node that has each, by its index.
    pub nodes: Vec<String>,
}

impl Coded {
    /// None of a chunk that is kept as copies.
    pub fn of(chunk: &Value) -> Option<Self> {
        let fragments = chunk["fragments"].as_object()?;
        let number = |name: &str| usize::try_from(fragments[name].as_u64()?).ok();
        let node = |shard: &Value| shard["node_id"].as_str().map(str::to_owned);
        Some(Self {
            id: chunk["chunk_id"].as_str()?.to_owned(),
            data: number("data_shards")?,
            parity: number("parity_shards")?,
            nodes: fragments["shards"]
                .as_array()?
                .iter()
                .map(node)
                .collect::<Option<_>>()?,
        })
    }

    /// Shards of each node that has any, those with most of them first.
    pub fn held(&self) -> Vec<(String, usize)> {
        let mut held: BTreeMap<&String, usize> = BTreeMap::new();
        for node in &self.nodes {
            *held.entry(node).or_default() += 1;
        }
        let mut held: Vec<(String, usize)> = held.into_iter().map(|(node, shards)| (node.clone(), shards)).collect();
        held.sort_by_key(|(_, shards)| std::cmp::Reverse(*shards));
        held
    }

    /// Whether it can be read without these nodes.
    pub fn can_be_read_without(&self, gone: &[String]) -> bool {
        self.nodes.iter().filter(|node| !gone.contains(node)).count() >= self.data
    }
}

/// The chunks of a film that are shards; all of them are, but the init segment and what is small.
pub fn of_film(filled: &Filled, video: &str) -> Vec<Coded> {
    let manifest = filled.manifest(video);
    let chunks = manifest["chunks"].as_array().unwrap().iter();
    let coded: Vec<Coded> = chunks.filter_map(Coded::of).collect();
    assert!(coded.len() > 2, "hardly anything of it is shards: {manifest}");
    coded
}
