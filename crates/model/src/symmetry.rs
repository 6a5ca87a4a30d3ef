//! Renamings of nodes under which a scope is the same scope: states that differ by one of them are taken for one.

use vstack_chunkpaxos::{Proposer, Register, Request};
use vstack_types::NodeRef;

use crate::{
    machines::Machines,
    names::{self, Mask, NODES_MAX, SHARD, bit, index, members, node},
    scope::{Begin, Form, Scope},
    state::{DONE, Decision, Mail, Node, SETTLES_NOTHING, State},
};

const UNKNOWN: u32 = u32::MAX;

/// One renaming, with what it makes of everything seen so far.
#[derive(Debug)]
pub struct Renaming {
    to: [u8; NODES_MAX],
    item_masks: [u8; 256],
    node_masks: [u8; 256],
    registers: Vec<u32>,
    requests: Vec<u32>,
    values: Vec<u32>,
    proposers: Vec<u32>,
}

/// All renamings of a scope; the first changes nothing.
#[derive(Debug)]
pub struct Symmetry {
    renamings: Vec<Renaming>,
    nodes: usize,
}

fn cached(table: &mut Vec<u32>, at: u32, make: impl FnOnce() -> u32) -> u32 {
    let at = at as usize;
    if table.len() <= at {
        table.resize(at + 1, UNKNOWN);
    }
    if table[at] == UNKNOWN {
        table[at] = make();
    }
    table[at]
}

impl Renaming {
    fn new(to: [u8; NODES_MAX], scope: &Scope) -> Option<Self> {
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        for form in scope.forms() {
            if let Form::Shards(_, on) = form {
                move_shards(&to, on, &mut items)?;
            }
        }
        let table = |map: &[u8; 8]| {
            let mut masks = [0u8; 256];
            for (mask, renamed) in (0u8..=255).zip(masks.iter_mut()) {
                *renamed = members(mask).fold(0, |all, n| all | bit(map[usize::from(n)]));
            }
            masks
        };
        let renaming = Self {
            to,
            item_masks: table(&items),
            node_masks: table(&to),
            registers: Vec::new(),
            requests: Vec::new(),
            values: Vec::new(),
            proposers: Vec::new(),
        };
        renaming.keeps(scope).then_some(renaming)
    }

    /// Whether the scope is the same under it.
    fn keeps(&self, scope: &Scope) -> bool {
        let set = |nodes: &[u8]| names::mask(names::refs(nodes));
        let fixed = |nodes: &[u8]| self.node_masks[usize::from(set(nodes))] == set(nodes);
        let forms = scope.forms();
        let same_forms = forms.iter().all(|form| match form {
            Form::Copies(nodes) => {
                let renamed = self.node_masks[usize::from(set(nodes))];
                forms
                    .iter()
                    .any(|other| matches!(other, Form::Copies(nodes) if set(nodes) == renamed))
            }
            Form::Shards(..) => true,
        });
        let begun = match scope.begin {
            Begin::Sent(Form::Copies(nodes))
            | Begin::Moving(Form::Copies(nodes))
            | Begin::Moved(Form::Copies(nodes)) => fixed(nodes),
            _ => true,
        };
        let heir = scope.faults.heir.is_none_or(|heir| fixed(&[heir]));
        let group = scope.faults.group.is_none_or(fixed);
        fixed(scope.initial) && fixed(scope.staged) && same_forms && begun && heir && group
    }

    fn name(&self) -> impl Fn(NodeRef) -> NodeRef + use<> {
        let to = self.to;
        move |of| node(to[usize::from(index(of))])
    }

    fn register(&mut self, machines: &mut Machines, number: u16) -> u16 {
        let name = self.name();
        let made = cached(&mut self.registers, number.into(), || {
            let renamed = Register::renamed(machines.registers.get(number), &name);
            machines.registers.number(renamed)
        });
        u16::try_from(made).unwrap_or(u16::MAX)
    }

    fn request(&mut self, machines: &mut Machines, number: u16) -> u16 {
        let name = self.name();
        let made = cached(&mut self.requests, number.into(), || {
            let renamed = Request::renamed(machines.requests.get(number), &name);
            machines.request(renamed).into()
        });
        u16::try_from(made).unwrap_or(u16::MAX)
    }

    fn value(&mut self, machines: &mut Machines, number: u16) -> u16 {
        let name = self.name();
        let made = cached(&mut self.values, number.into(), || {
            let renamed = machines.values.get(number).renamed(&name);
            machines.values.number(renamed)
        });
        u16::try_from(made).unwrap_or(u16::MAX)
    }

    fn proposer(&mut self, machines: &mut Machines, number: u32) -> u32 {
        if number <= DONE {
            return number;
        }
        let name = self.name();
        cached(&mut self.proposers, number, || {
            let renamed = Proposer::renamed(machines.proposer_of(number), &name);
            machines.proposer(renamed)
        })
    }

    fn nodes(&mut self, machines: &mut Machines, state: &State, count: usize) -> [Node; NODES_MAX] {
        let mut nodes = state.nodes;
        for (n, of) in state.nodes[..count].iter().enumerate() {
            nodes[usize::from(self.to[n])] = Node {
                register: self.register(machines, of.register),
                items: self.item_masks[usize::from(of.items)],
                standing: of.standing,
                old: of
                    .old
                    .map(|(register, items)| (self.register(machines, register), self.item_masks[usize::from(items)])),
                taken: self.item_masks[usize::from(of.taken)],
                knew_later: of.knew_later,
            };
        }
        nodes
    }

    fn rest(&mut self, machines: &mut Machines, state: &State, nodes: [Node; NODES_MAX]) -> State {
        let masks = self.node_masks;
        let renamed = |mask: Mask| masks[usize::from(mask)];
        let mut mail: Vec<Mail> = state
            .mail
            .iter()
            .map(|mail| Mail {
                request: self.request(machines, mail.request),
                to: renamed(mail.to),
                voters: renamed(mail.voters),
            })
            .collect();
        mail.sort_unstable();
        let mut counted_without: Vec<_> = state
            .counted_without
            .iter()
            .map(|(value, without)| (self.value(machines, *value), renamed(*without)))
            .collect();
        counted_without.sort_unstable();
        State {
            nodes,
            rivals: state.rivals.map(|rival| self.proposer(machines, rival)),
            mail,
            chain: state
                .chain
                .iter()
                .map(|decision| Decision {
                    value: self.value(machines, decision.value),
                    ..*decision
                })
                .collect(),
            settles_without: state.settles_without.map(
                |mask| {
                    if mask == SETTLES_NOTHING { mask } else { renamed(mask) }
                },
            ),
            counted_without,
            spent: state.spent,
        }
    }
}

/// Where the shards of a layout go when their nodes are renamed: to the shards of the renamed node, in order. None
/// when that node has another number of them, or when another layout moves a shard elsewhere.
fn move_shards(to: &[u8; NODES_MAX], on: &[u8], items: &mut [u8; 8]) -> Option<()> {
    let of = |n: u8| {
        (0u8..)
            .zip(on)
            .filter(move |(_, at)| **at - 1 == n)
            .map(|(shard, _)| SHARD + shard)
    };
    for n in 0..u8::try_from(NODES_MAX).unwrap_or(u8::MAX) {
        let (from, onto): (Vec<u8>, Vec<u8>) = (of(n).collect(), of(to[usize::from(n)]).collect());
        if from.len() != onto.len() {
            return None;
        }
        for (shard, renamed) in from.into_iter().zip(onto) {
            items[usize::from(shard)] = renamed;
        }
    }
    Some(())
}

impl Symmetry {
    /// The renamings of `scope`.
    pub fn of(scope: &Scope) -> Self {
        let count = usize::from(scope.nodes);
        let mut orders = vec![Vec::new()];
        for _ in 0..scope.nodes {
            orders = orders
                .into_iter()
                .flat_map(|order: Vec<u8>| {
                    let free: Vec<u8> = (0..scope.nodes).filter(|n| !order.contains(n)).collect();
                    free.into_iter().map(move |n| {
                        let mut longer = order.clone();
                        longer.push(n);
                        longer
                    })
                })
                .collect();
        }
        let renamings = orders.into_iter().filter_map(|order| {
            let mut to = [0, 1, 2, 3, 4, 5, 6, 7];
            to[..count].copy_from_slice(&order);
            Renaming::new(to, scope)
        });
        Self {
            renamings: renamings.collect(),
            nodes: count,
        }
    }

    /// No renaming but the one that changes nothing.
    pub fn none(scope: &Scope) -> Self {
        let mut all = Self::of(scope);
        all.renamings.truncate(1);
        all
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.renamings.len()
    }

    /// The one of all states that are the same but for names which is least.
    pub fn canonical(&mut self, machines: &mut Machines, state: State) -> State {
        if self.renamings.len() == 1 {
            return state;
        }
        let count = self.nodes;
        let made: Vec<_> = self
            .renamings
            .iter_mut()
            .map(|renaming| renaming.nodes(machines, &state, count))
            .collect();
        let Some(least) = made.iter().min().copied() else {
            return state;
        };
        let mut best: Option<State> = None;
        for (renaming, nodes) in self.renamings.iter_mut().zip(made) {
            if nodes != least {
                continue;
            }
            let renamed = renaming.rest(machines, &state, nodes);
            let smaller = best.as_ref().is_none_or(|best| {
                (&renamed.rivals, &renamed.mail, &renamed.chain) < (&best.rivals, &best.mail, &best.chain)
            });
            if smaller {
                best = Some(renamed);
            }
        }
        best.unwrap_or(state)
    }
}
