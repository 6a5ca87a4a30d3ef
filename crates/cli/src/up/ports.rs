//! Which ports a cluster listens on.

use std::net::{IpAddr, SocketAddr, TcpListener};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    pub metadata: u16,
    pub nodes: Vec<u16>,
    pub uploader: u16,
    pub web: u16,
    pub client: u16,
}

/// The ports to use; with [`Choice::Auto`] those of the last run, where they are still free.
pub fn choose(options: &Options, before: Option<&State>) -> anyhow::Result<Ports> {
    let names = names(usize::from(options.nodes));
    let mut taken = Vec::new();
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
                match old.filter(|port| is_free(options.bind_address, *port) && !taken.contains(port)) {
                    Some(port) => port,
                    None => any_free(options.bind_address, &taken)?,
                }
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

/// Below the range from which the kernel takes ports for outgoing connections: one of those could sit on a service's
/// port while the service is being restarted.
fn any_free(address: IpAddr, taken: &[u16]) -> anyhow::Result<u16> {
    let mut rng = rand::rng();
    for _ in 0..1000 {
        let port = rng.random_range(10_000..32_000);
        if !taken.contains(&port) && is_free(address, port) {
            return Ok(port);
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
