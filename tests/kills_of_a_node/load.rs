//! One caller with chunks of its own: what it was told of them, and whether the node stands by it.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, Digest, ProcessUuid};

use crate::victim::SECRET;

/// Chunks of one caller at a time.
const LIVE_MAX: usize = 60;

/// Of what is gone, so many of the last are looked at after every restart.
const GONE_LOOKED_AT: usize = 100;

/// So that some are given back by punching holes and the others by emptying superblocks.
const SIZES: [usize; 6] = [1, 900, 5000, 20_000, 60_000, 200_000];

/// In which a deletion is decided.
const LAST_ROUND: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Here,
    Gone,
    /// Asked for and not answered.
    Unclear,
}

#[derive(Debug, Clone)]
struct Told {
    /// Of its bytes.
    seed: u64,
    size: usize,
    state: State,
    /// Highest round promised; none for bytes without a vote.
    promised: Option<u64>,
}

pub struct Worker {
    number: u64,
    url: String,
    rng: StdRng,
    calls: NodeClient,
    http: reqwest::Client,
    holder: Option<Holder>,
    process: ProcessUuid,
    next: u64,
    told: BTreeMap<u64, Told>,
    answered: u64,
}

/// No answer: the node is dead.
struct Died;

impl<E: std::error::Error> From<E> for Died {
    fn from(_: E) -> Self {
        Self
    }
}

fn bytes(seed: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes.into()
}

impl Worker {
    pub fn new(number: u64, seed: u64, url: String) -> Self {
        let http = HttpClient::new(Some(SECRET.parse().unwrap()), Timeouts::default()).unwrap();
        Self {
            number,
            url,
            rng: StdRng::seed_from_u64(seed + number),
            calls: NodeClient::new(http),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            holder: None,
            process: ProcessUuid::from_bytes([u8::try_from(number + 1).unwrap(); 16]),
            next: 0,
            told: BTreeMap::new(),
            answered: 0,
        }
    }

    /// Operations that were answered.
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    fn id(&self, chunk: u64) -> ChunkId {
        format!("of-{}-{chunk}", self.number).parse().unwrap()
    }

    fn chunk_url(&self, chunk: u64) -> String {
        format!("{}/chunk/{}", self.url, self.id(chunk))
    }

    const fn ballot(&self, round: u64) -> Ballot {
        Ballot {
            round,
            proposer: self.process,
        }
    }

    fn placement(&self, told: &Told, version: u64, layout: Layout) -> Placement {
        Placement {
            version,
            size: told.size as u64,
            sha256: Digest::of(&bytes(told.seed, told.size)),
            layout,
            prev: None,
            back: false,
        }
    }

    /// One operation after the other until there is no answer.
    pub async fn work_until_it_dies(&mut self) {
        while self.step().await.is_ok() {
            self.answered += 1;
        }
    }

    async fn step(&mut self) -> Result<(), Died> {
        let here: Vec<u64> = self.chunks(State::Here).collect();
        let some = (!here.is_empty()).then(|| here[self.rng.random_range(0..here.len())]);
        match (self.rng.random_range(0..100), some) {
            (0..15, Some(chunk)) => self.get(chunk).await,
            (15..22, Some(chunk)) => self.prepare(chunk).await,
            (22..55, Some(chunk)) => self.delete(chunk).await,
            (_, Some(chunk)) if here.len() >= LIVE_MAX => self.delete(chunk).await,
            _ => self.put().await,
        }
    }

    fn chunks(&self, state: State) -> impl DoubleEndedIterator<Item = u64> {
        let those = self.told.iter().filter(move |(_, told)| told.state == state);
        those.map(|(chunk, _)| *chunk)
    }

    fn set(&mut self, chunk: u64, state: State) {
        self.told.get_mut(&chunk).unwrap().state = state;
    }

    async fn holder(&mut self) -> Result<Holder, Died> {
        if self.holder.is_none() {
            let node = self.calls.challenge(&self.url).await?;
            let url = self.url.clone();
            self.holder = Some(Holder { node, url });
        }
        self.holder.clone().ok_or(Died)
    }

    async fn put(&mut self) -> Result<(), Died> {
        let holder = self.holder().await?;
        let chunk = self.next;
        self.next += 1;
        let votes = self.rng.random_bool(0.5);
        let told = Told {
            seed: self.rng.random(),
            size: SIZES[self.rng.random_range(0..SIZES.len())],
            state: State::Unclear,
            promised: votes.then_some(0),
        };
        let body = bytes(told.seed, told.size);
        self.told.insert(chunk, told.clone());
        if votes {
            let nodes = vec![holder.node];
            let placement = self.placement(&told, 1, Layout::Replicated { nodes });
            let ballot = self.ballot(0);
            let vote = Request::Put0 { ballot, placement };
            let reply = self.calls.put_vote(&holder, &self.id(chunk), &vote, body).await?;
            assert_eq!(reply, Reply::Accepted { ballot });
        } else {
            let answer = self.http.put(self.chunk_url(chunk)).body(body).send().await?;
            assert_eq!(answer.status().as_u16(), 201, "{:?}", answer.text().await);
        }
        self.set(chunk, State::Here);
        Ok(())
    }

    async fn get(&mut self, chunk: u64) -> Result<(), Died> {
        let told = self.told[&chunk].clone();
        let answer = self.http.get(self.chunk_url(chunk)).send().await?;
        assert_eq!(answer.status().as_u16(), 200, "{}", self.id(chunk));
        let read = answer.bytes().await?;
        assert!(
            read == bytes(told.seed, told.size),
            "{} has other bytes",
            self.id(chunk)
        );
        Ok(())
    }

    async fn prepare(&mut self, chunk: u64) -> Result<(), Died> {
        let Some(round) = self.told[&chunk].promised else {
            return self.get(chunk).await;
        };
        let holder = self.holder().await?;
        let ballot = self.ballot(round + 1);
        let request = Request::Prepare { ballot };
        let reply = self.calls.paxos(&holder, &self.id(chunk), &request).await?;
        assert!(matches!(reply, Reply::Promise { holds: true, .. }), "{reply:?}");
        self.told.get_mut(&chunk).unwrap().promised = Some(round + 1);
        Ok(())
    }

    async fn delete(&mut self, chunk: u64) -> Result<(), Died> {
        let told = self.told[&chunk].clone();
        self.set(chunk, State::Unclear);
        if told.promised.is_some() {
            let holder = self.holder().await?;
            let nodes = vec![holder.node];
            let decided = Request::Decided {
                ballot: self.ballot(LAST_ROUND),
                placement: self.placement(&told, 2, Layout::Deleted { nodes }),
            };
            self.calls.decided(&holder, &[(self.id(chunk), decided)]).await?;
        } else {
            let answer = self.http.delete(self.chunk_url(chunk)).send().await?;
            assert_eq!(answer.status().as_u16(), 204, "{}", self.id(chunk));
        }
        self.set(chunk, State::Gone);
        Ok(())
    }

    /// After a restart: everything that is kept, and of what is gone the last, or `everything`. What was unclear is
    /// one of both now.
    pub async fn check(&mut self, everything: bool) {
        let unclear: Vec<u64> = self.chunks(State::Unclear).collect();
        for chunk in unclear {
            let state = if self.is_here(chunk).await {
                State::Here
            } else {
                State::Gone
            };
            self.set(chunk, state);
        }
        let here: Vec<u64> = self.chunks(State::Here).collect();
        for chunk in here {
            assert!(
                self.is_here(chunk).await,
                "{} was acknowledged and is gone",
                self.id(chunk)
            );
            self.check_register(chunk).await;
        }
        let looked_at = if everything { usize::MAX } else { GONE_LOOKED_AT };
        let gone: Vec<u64> = self.chunks(State::Gone).rev().take(looked_at).collect();
        for chunk in gone {
            assert!(!self.is_here(chunk).await, "{} was deleted and is back", self.id(chunk));
        }
    }

    async fn is_here(&self, chunk: u64) -> bool {
        let told = &self.told[&chunk];
        let answer = self.http.get(self.chunk_url(chunk)).send().await.unwrap();
        match answer.status().as_u16() {
            200 => {
                let read = answer.bytes().await.unwrap();
                assert!(
                    read == bytes(told.seed, told.size),
                    "{} has other bytes",
                    self.id(chunk)
                );
                true
            }
            404 => false,
            other => panic!("{}: {other} {:?}", self.id(chunk), answer.text().await),
        }
    }

    async fn check_register(&self, chunk: u64) {
        let Some(promised) = self.told[&chunk].promised else {
            return;
        };
        let id = self.id(chunk);
        let view = self.calls.register(&self.url, &id).await.unwrap();
        assert!(!view.damaged && view.holds, "{view:?}");
        assert_eq!(view.accepted, Some(self.ballot(0).to_string()), "{view:?}");
        let round = view.promised.as_deref().and_then(|ballot| ballot.split_once('@'));
        let round: Option<u64> = round.and_then(|(round, _)| round.parse().ok());
        assert!(round >= Some(promised), "{promised} was promised: {view:?}");
    }
}
