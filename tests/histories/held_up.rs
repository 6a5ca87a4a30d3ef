//! What links did to those who used them.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    cluster::Cluster,
    links::{Link, Seen},
};

/// What links did: faults that hold nothing up would show nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeldUp {
    /// Pieces, between callers and nodes.
    pub ways: usize,
    /// Before nodes, for everybody.
    pub fronts: usize,
    /// Between nodes and the metadata service.
    pub to_metadata: usize,
    /// Questions of nodes that fetched bytes from each other, and those of them that had to wait.
    pub pulls: usize,
    pub pulls_held: usize,
}

impl HeldUp {
    pub fn by(links: &[Vec<Link>], cluster: &Cluster) -> Self {
        let sum = |links: &mut dyn Iterator<Item = &Link>, of: fn(&Seen) -> &AtomicUsize| {
            links.map(|link| of(&link.seen).load(Ordering::Relaxed)).sum::<usize>()
        };
        let ways = || links.iter().flatten();
        let fronts = || (0..cluster.len()).map(|node| cluster.front(node));
        let mut to_metadata = (0..cluster.len()).map(|node| cluster.to_metadata(node));
        Self {
            ways: sum(&mut ways(), |seen| &seen.held),
            fronts: sum(&mut fronts(), |seen| &seen.held),
            to_metadata: sum(&mut to_metadata, |seen| &seen.held),
            pulls: sum(&mut fronts(), |seen| &seen.pulls),
            pulls_held: sum(&mut ways().chain(fronts()), |seen| &seen.pulls_held),
        }
    }
}

impl std::ops::AddAssign for HeldUp {
    fn add_assign(&mut self, other: Self) {
        self.ways += other.ways;
        self.fronts += other.fronts;
        self.to_metadata += other.to_metadata;
        self.pulls += other.pulls;
        self.pulls_held += other.pulls_held;
    }
}
