//! Which ports a cluster listens on.
//!
//! A port chosen automatically must stay free until its service takes it, and again whenever the service restarts. The
//! supervisor keeps the UDP port of the same number as a sign to other supervisors: it goes with the process.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::bail;
use rand::RngExt as _;

use super::{Options, State};

/// How ports are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// 8080 to 8086, and from 8094.
    Standard,
    /// Any free ones.
    Auto,
}

/// A cluster's ports.
#[derive(Debug)]
pub struct Ports {
    pub metadata: u16,
    pub nodes: Vec<u16>,
    pub uploader: u16,
    pub web: u16,
    pub client: u16,
    _reserved: Vec<UdpSocket>,
}

/// The ports to use; with [`Choice::Auto`] those of the last run, where they are still free.
pub fn choose(options: &Options, before: Option<&State>) -> anyhow::Result<Ports> {
    let names = names(usize::from(options.nodes));
    let mut taken = Vec::new();
    let mut reserved = Vec::new();
    for name in &names {
        let port = match options.ports {
            Choice::Standard => {
                let port = standard(name).saturating_add(options.port_offset);
                if !is_free(options.bind_address, port) {
                    bail!(
                        "port {port} ({name}) is in use; stop what uses it, or give --port-offset 1000 or --ports auto"
                    );
                }
                port
            }
            Choice::Auto => {
                let old = before.and_then(|state| state.port_of(name));
                let again = old.and_then(|port| Some((port, reserve(options.bind_address, port)?)));
                let (port, sign) = again.map_or_else(|| any_free(options.bind_address), Ok)?;
                reserved.push(sign);
                port
            }
        };
        taken.push(port);
    }
    let node_count = usize::from(options.nodes);
    Ok(Ports {
        metadata: taken[0],
        nodes: taken[1..=node_count].to_vec(),
        uploader: taken[node_count + 1],
        web: taken[node_count + 2],
        client: taken[node_count + 3],
        _reserved: reserved,
    })
}

/// Names of a cluster's services, in the order they are started.
pub fn names(nodes: usize) -> Vec<String> {
    let mut names = vec!["metadata".to_owned()];
    names.extend((1..=nodes).map(|number| format!("storage-node-{number}")));
    names.extend(["uploader", "web", "client"].map(str::to_owned));
    names
}

fn standard(name: &str) -> u16 {
    match name {
        "metadata" => 8080,
        "uploader" => 8084,
        "web" => 8085,
        "client" => 8086,
        node => {
            let number: u16 = node
                .rsplit('-')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(1);
            if number <= 3 { 8080 + number } else { 8090 + number }
        }
    }
}

fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind(SocketAddr::new(address, port)).is_ok()
}

/// Takes the sign of a port on which nothing listens.
fn reserve(address: IpAddr, port: u16) -> Option<UdpSocket> {
    let sign = UdpSocket::bind(SocketAddr::new(address, port)).ok()?;
    is_free(address, port).then_some(sign)
}

/// Below the range from which the kernel takes ports for outgoing connections: one of those could sit on a service's
/// port while the service is being restarted.
fn any_free(address: IpAddr) -> anyhow::Result<(u16, UdpSocket)> {
    let mut rng = rand::rng();
    for _ in 0..1000 {
        let port = rng.random_range(10_000..32_000);
        if let Some(sign) = reserve(address, port) {
            return Ok((port, sign));
        }
    }
    bail!("no free port was found between 10000 and 32000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_ports_are_the_documented_ones() {
        let ports: Vec<_> = names(5).iter().map(|name| standard(name)).collect();
        assert_eq!(ports, [8080, 8081, 8082, 8083, 8094, 8095, 8084, 8085, 8086]);
    }
}
