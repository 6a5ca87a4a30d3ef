//! Who is measured side by side: a storage node and both modes of nginx, with the same chunks.

use crate::{
    load::Rounds,
    measure::{pairwise, ratios},
    nginx::Nginx,
    report::{Row, Section},
};

/// Servers of the same chunks.
pub struct Contenders {
    /// Name and `host:port`; the node first, then nginx when it is installed.
    pub hosts: Vec<(&'static str, String)>,
}

/// Rounds of each contender.
pub type Measured = Vec<Rounds>;

impl Contenders {
    /// Says in `section` who takes part.
    pub fn new(node: &str, nginx: Option<&Nginx>, section: &mut Section) -> Self {
        let mut hosts = vec![("vstack node", node.to_owned())];
        match nginx {
            Some(nginx) => {
                section.note(format!("peer: {}", nginx.version));
                hosts.push(("nginx, sendfile", nginx.sendfile.clone()));
                hosts.push(("nginx, 1 MiB buffers", nginx.buffers.clone()));
            }
            None => {
                section.note("nginx is not installed: there is no peer, and targets relative to it are not measured");
            }
        }
        Self { hosts }
    }

    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        self.hosts.iter().map(|(name, _)| *name).collect()
    }

    /// No rounds yet.
    pub fn measured(&self) -> Measured {
        vec![Rounds::default(); self.hosts.len()]
    }

    /// A row for each, named with `at`, and one for the ratios.
    pub fn tell(&self, section: &mut Section, at: &str, unit: &'static str, measured: &Measured) {
        for ((name, _), rounds) in self.hosts.iter().zip(measured) {
            section.rows.push(rounds.row(format!("{name}, {at}"), unit));
        }
        let found = Ratios::of(measured);
        if !found.rates.is_empty() {
            section
                .rows
                .push(Row::new(format!("node / better nginx, rate, {at}"), "x", found.rates));
            section
                .rows
                .push(Row::new(format!("node / better nginx, p99, {at}"), "x", found.p99s));
        }
    }
}

/// The node's figures over those of the nginx mode that was the faster one in the same round. Empty without nginx.
pub struct Ratios {
    /// Of the rates.
    pub rates: Vec<f64>,
    /// Of the p99s.
    pub p99s: Vec<f64>,
}

impl Ratios {
    /// Of the node first, then both modes of nginx.
    pub fn of(measured: &[Rounds]) -> Self {
        let [node, sendfile, buffers] = measured else {
            return Self {
                rates: Vec::new(),
                p99s: Vec::new(),
            };
        };
        let better = pairwise(&sendfile.rates, &buffers.rates, f64::max);
        let p99s: Vec<f64> = (0..better.len())
            .map(|round| {
                if sendfile.rates[round] >= buffers.rates[round] {
                    sendfile.p99s()[round]
                } else {
                    buffers.p99s()[round]
                }
            })
            .collect();
        Self {
            rates: ratios(&node.rates, &better),
            p99s: ratios(&node.p99s(), &p99s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::LatencyMs;

    fn rounds(rates: [f64; 2], p99s: [f64; 2]) -> Rounds {
        let latency = |p99| LatencyMs {
            p50: 0.0,
            p90: 0.0,
            p99,
            p999: 0.0,
            max: 0.0,
        };
        Rounds {
            rates: rates.to_vec(),
            latency_ms: p99s.map(latency).to_vec(),
            part_ms: Vec::new(),
        }
    }

    #[test]
    fn the_node_is_held_against_what_was_better_in_the_same_round() {
        let measured = [
            rounds([10.0, 10.0], [6.0, 6.0]),
            rounds([20.0, 2.0], [2.0, 9.0]),
            rounds([5.0, 5.0], [9.0, 3.0]),
        ];
        let found = Ratios::of(&measured);
        assert_eq!(found.rates, [0.5, 2.0]);
        assert_eq!(found.p99s, [3.0, 2.0]);
        assert!(Ratios::of(&measured[..1]).rates.is_empty());
    }
}
