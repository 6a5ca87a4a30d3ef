//! Networks of the kernel's own, where this machine allows them: a network namespace for every process of the cluster,
//! each at the end of a link to the one of the test, which forwards between them. Nothing outside is reached or
//! changed: also the test is run again in a namespace of its own, and all of them are gone with their processes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::harness::{skipped, wait_for};

/// Set where the test is in its own namespace.
const INSIDE: &str = "VSTACK_INSIDE_A_NAMESPACE";

/// Far more seconds than a history takes.
const LIMIT_SECONDS: &str = "120";

/// Ways to a namespace: for root, and for others where they may be root in one of theirs.
const WAYS: [&[&str]; 2] = [
    &["unshare", "--net", "--"],
    &["unshare", "--user", "--map-root-user", "--net", "--"],
];

/// True in a namespace of the test's own. Elsewhere runs `test` in one, or says that there can be none.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let allowed = WAYS.iter().find(|way| {
        let probe = output(way, "ip link add probe type veth");
        probe.is_ok_and(|probe| probe.status.success())
    });
    let Some(way) = allowed else {
        skipped(
            test,
            "this machine gives it no network namespaces with links between them",
        );
        return false;
    };
    let status = Command::new("timeout")
        .args(["--kill-after=1", LIMIT_SECONDS])
        .args(*way)
        .arg(std::env::current_exe().expect("the test's own path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("it starts");
    assert!(status.success(), "{test} in a namespace of its own: {status}");
    false
}

/// Numbered from 0.
pub struct Namespaces {
    /// What keeps each there.
    holders: Vec<Child>,
}

impl Namespaces {
    /// Each with its link, all of which are up.
    pub fn new(count: usize) -> Self {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a namespace forwards when told to");
        ip("link set lo up");
        let mut namespaces = Self { holders: Vec::new() };
        for number in 0..count {
            namespaces.holders.push(holder());
            let pid = namespaces.holders[number].id();
            ip(&format!("link add to-{number} type veth peer name out netns {pid}"));
            ip(&format!("addr add 10.77.{number}.1/30 dev to-{number}"));
            ip(&format!("link set to-{number} up"));
            for line in [
                "link set lo up".to_owned(),
                format!("addr add {}/30 dev out", namespaces.address(number)),
                "link set out up".to_owned(),
                format!("route add default via 10.77.{number}.1"),
            ] {
                succeeded(&line, output(&namespaces.within(number), &format!("ip {line}")));
            }
        }
        namespaces
    }

    pub fn len(&self) -> usize {
        self.holders.len()
    }

    pub fn address(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, u8::try_from(number).expect("few"), 2)
    }

    /// What a command is put behind to run there.
    pub fn within(&self, number: usize) -> [String; 4] {
        let pid = self.holders[number].id().to_string();
        ["nsenter".to_owned(), "--net".to_owned(), "--target".to_owned(), pid]
    }

    /// Nobody reaches it, and it reaches nobody.
    pub fn take_down(&self, number: usize) {
        ip(&format!("link set to-{number} down"));
        let there = SocketAddr::from((self.address(number), 1));
        let error = TcpStream::connect_timeout(&there, Duration::from_millis(100)).expect_err("the link is down");
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "it was reached: {error}"
        );
    }

    pub fn bring_up(&self, number: usize) {
        ip(&format!("link set to-{number} up"));
    }

    /// What one sends to the other is lost, in this direction alone.
    pub fn cut(&self, from: usize, to: usize) {
        ip(&format!("rule add {}", self.lost(from, to)));
    }

    pub fn mend(&self, from: usize, to: usize) {
        ip(&format!("rule del {}", self.lost(from, to)));
    }

    /// Whether a connection can be made.
    pub fn reaches(&self, from: usize, to: SocketAddr) -> bool {
        let connect = format!("timeout 0.5 bash -c exec</dev/tcp/{}/{}", to.ip(), to.port());
        output(&self.within(from), &connect).is_ok_and(|tried| tried.status.success())
    }

    fn lost(&self, from: usize, to: usize) -> String {
        format!("from {} to {} blackhole", self.address(from), self.address(to))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _killed = holder.kill();
            let _reaped = holder.wait();
        }
    }
}

fn holder() -> Child {
    let holder = Command::new("unshare")
        .args(["--net", "--", "sleep", LIMIT_SECONDS])
        .stdin(Stdio::null())
        .spawn()
        .expect("a namespace");
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    wait_for("a namespace", || {
        (network(&holder.id().to_string())? != network("self")?).then_some(())
    });
    holder
}

fn output(within: &[impl AsRef<std::ffi::OsStr>], line: &str) -> std::io::Result<Output> {
    let (program, rest) = within.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(rest).args(line.split(' ')).stdin(Stdio::null()).output()
}

fn ip(line: &str) {
    succeeded(line, output(&["ip"], line));
}

fn succeeded(line: &str, output: std::io::Result<Output>) {
    let output = output.expect("ip starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {line}: {said}");
}
