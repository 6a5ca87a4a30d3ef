//! Single services, for tests that put something between them.

use std::{
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{Signal, send, vstack};

/// A service of its own, killed when the test ends. To be started by the thread that runs the test.
pub struct Service(Child);

impl Service {
    /// `vstack <name>` with this environment; what it says goes to the end of `log`.
    pub fn start(name: &str, log: &Path, secret: &str, env: &[(&str, &str)]) -> Self {
        Self::start_within(&[], name, log, secret, env)
    }

    /// The same behind a command that becomes the service, as `nsenter` does.
    pub fn start_within(within: &[String], name: &str, log: &Path, secret: &str, env: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let mut command = match within.split_first() {
            None => Command::new(vstack()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg("--").arg(vstack());
                command
            }
        };
        let child = command
            .arg(name)
            .env("CLUSTER_SECRET", secret)
            // The kernel ends it with the thread that started it, also when the test is killed.
            .env("VSTACK_SUPERVISOR_PID", std::process::id().to_string())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("vstack starts");
        Self(child)
    }

    /// Any signal but one that ends it: dropping does that.
    pub fn signal(&self, signal: Signal) {
        assert!(send(self.0.id(), signal), "{signal:?} to {}", self.0.id());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A port below the range of outgoing connections, with the UDP port of the same number as a sign to other clusters.
pub fn free_port() -> (String, UdpSocket) {
    (0..)
        .find_map(|_| {
            let port = 10_000 + rand::random::<u16>() % 20_000;
            let sign = UdpSocket::bind(("127.0.0.1", port)).ok()?;
            TcpListener::bind(("127.0.0.1", port)).ok()?;
            Some((port.to_string(), sign))
        })
        .expect("a free port")
}
