//! What is to be believed of a shard of which a node made something else than is listed.
//!
//! A shard is made of a chunk that has its SHA-256, and depends on nothing but the code: of whatever shards the chunk came,
//! everybody who calculates right makes the same. So either what is listed is none of the chunk, or whoever made something
//! else does not calculate right, and one node's word does not tell which. Others are asked until two say the same, of whom
//! one may be the one who made what is listed.

use vstack_types::{Digest, NodeRef};

/// Nodes that are asked at most, whether or not they answer, beside the one who raised the doubt.
const ASKED_MAX: usize = 4;

/// What nodes made of a chunk under one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    listed: Digest,
    /// In the order in which it was heard.
    said: Vec<(NodeRef, Digest)>,
    asked: Vec<NodeRef>,
}

/// What is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What is listed is right: another node makes the same.
    Listed,
    /// What is listed is none of the chunk: this is, as two nodes say.
    Other(Digest),
    /// No two say the same yet.
    Open,
}

impl Doubt {
    /// Of what is listed so, nobody said anything yet.
    pub const fn about(listed: Digest) -> Self {
        Self {
            listed,
            said: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// A node made this.
    pub fn heard(&mut self, node: NodeRef, made: Digest) {
        self.said.push((node, made));
    }

    /// Who of these is to make it next; none once it is known what to believe, or enough were asked.
    pub fn next(&mut self, of: &[NodeRef]) -> Option<NodeRef> {
        if self.verdict() != Verdict::Open || self.asked.len() >= ASKED_MAX {
            return None;
        }
        let was_asked = |node: &NodeRef| self.asked.contains(node) || self.said.iter().any(|(by, _)| by == node);
        let next = of.iter().copied().find(|node| !was_asked(node))?;
        self.asked.push(next);
        Some(next)
    }

    /// What is to be believed by what was heard so far.
    pub fn verdict(&self) -> Verdict {
        if self.said.iter().any(|(_, made)| *made == self.listed) {
            return Verdict::Listed;
        }
        let times = |made: &Digest| self.said.iter().filter(|(_, other)| other == made).count();
        let twice = self.said.iter().find(|(_, made)| times(made) >= 2);
        twice.map_or(Verdict::Open, |(_, made)| Verdict::Other(*made))
    }

    /// Whether no more than one node said anything.
    pub fn is_one_word(&self) -> bool {
        self.said.len() <= 1
    }

    /// Whether a node made something else than is to be believed. As long as that is open, everybody did.
    pub fn is_to_blame(&self, node: NodeRef) -> bool {
        let right = match self.verdict() {
            Verdict::Listed => Some(self.listed),
            Verdict::Other(made) => Some(made),
            Verdict::Open => None,
        };
        let mut of_node = self.said.iter().filter(|(by, _)| *by == node);
        of_node.any(|(_, made)| Some(*made) != right)
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn made(what: u8) -> Digest {
        Digest::of(&[what])
    }

    const LISTED: u8 = 0;

    /// Node 1 made the first of these, and others are asked in their order, of whom those that say nothing are silent. Gives
    /// what is believed, who was asked, and who is to blame.
    fn settled(said: &[Option<u8>]) -> (Verdict, Vec<u8>, Vec<u8>) {
        let all: Vec<u8> = (1..=9).collect();
        let nodes: Vec<NodeRef> = all.iter().map(|n| node(*n)).collect();
        let mut doubt = Doubt::about(made(LISTED));
        doubt.heard(nodes[0], made(said[0].expect("the first one raised it")));
        let mut asked = Vec::new();
        while let Some(next) = doubt.next(&nodes) {
            let at = nodes.iter().position(|node| *node == next).expect("one of them");
            asked.push(all[at]);
            if let Some(what) = said.get(at).copied().flatten() {
                doubt.heard(next, made(what));
            }
        }
        let blamed = all.into_iter().filter(|n| doubt.is_to_blame(node(*n))).collect();
        (doubt.verdict(), asked, blamed)
    }

    #[test]
    fn one_nodes_word_is_none_against_what_is_listed() {
        let other = |what| Verdict::Other(made(what));
        type Case<'a> = (&'a [Option<u8>], Verdict, &'a [u8], &'a [u8]);
        let table: [Case<'_>; 8] = [
            // Nobody is asked who made what is listed.
            (&[Some(0)], Verdict::Listed, &[], &[]),
            // The second says what is listed, so the first is to blame.
            (&[Some(1), Some(0)], Verdict::Listed, &[2], &[1]),
            // Or the same as the first.
            (&[Some(1), Some(1)], other(1), &[2], &[]),
            (&[Some(1), None, Some(1)], other(1), &[2, 3], &[]),
            // Who stands alone is to blame, whichever of them.
            (&[Some(1), Some(2), Some(2)], other(2), &[2, 3], &[1]),
            (&[Some(1), Some(2), Some(1)], other(1), &[2, 3], &[2]),
            (&[Some(1), Some(2), Some(0)], Verdict::Listed, &[2, 3], &[1, 2]),
            // Where nobody else says anything it stays open, and what is listed stays.
            (&[Some(1)], Verdict::Open, &[2, 3, 4, 5], &[1]),
        ];
        for (said, verdict, asked, blamed) in table {
            let (found, of, to_blame) = settled(said);
            assert_eq!((found, &of[..], &to_blame[..]), (verdict, asked, blamed), "{said:?}");
        }
    }

    #[test]
    fn nobody_is_asked_twice() {
        let mut doubt = Doubt::about(made(LISTED));
        doubt.heard(node(1), made(1));
        assert!(doubt.is_one_word());
        assert_eq!(doubt.next(&[node(1), node(2)]), Some(node(2)));
        assert_eq!(doubt.next(&[node(1), node(2)]), None, "it did not answer");
        assert_eq!(doubt.next(&[node(2), node(3)]), Some(node(3)));
        doubt.heard(node(3), made(2));
        assert!(!doubt.is_one_word());
    }
}
