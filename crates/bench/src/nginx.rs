//! nginx as the peer: the same files, once by sendfile and once read into large buffers. It takes PUTs too, and syncs
//! nothing of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    payload::Payload,
    process::{Running, command, find, free_port},
};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _running: Running,
    /// `host:port` of the server that uses sendfile.
    pub sendfile: String,
    /// `host:port` of the server that reads and writes with buffers of 1 MiB.
    pub buffers: String,
    /// As it says.
    pub version: String,
    /// Whether it takes PUTs, as Debian's does.
    pub takes_puts: bool,
    /// Where the files are.
    pub root: PathBuf,
    /// Removed after the process has ended: fields are dropped in this order.
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// Serves `count` chunks as `/chunk/<index>`. None when nginx is not installed.
    pub async fn start(directory: &Path, payload: &Payload, count: usize) -> anyhow::Result<Option<Self>> {
        let Some(program) = find("nginx") else { return Ok(None) };
        let directory = tempfile::Builder::new().prefix("nginx-").tempdir_in(directory)?;
        let root = directory.path();
        std::fs::create_dir_all(root.join("www/chunk"))?;
        for index in 0..count {
            std::fs::write(root.join(format!("www/chunk/{index}")), &payload.chunk(index).bytes)?;
        }
        let (sendfile, buffers) = (free_port()?, free_port()?);
        let (version, takes_puts) = about(&program)?;
        std::fs::write(
            root.join("nginx.conf"),
            configuration(root, sendfile, buffers, takes_puts),
        )?;
        let mut start = command(&program);
        start.arg("-c").arg(root.join("nginx.conf")).arg("-p").arg(root);
        let mut running = Running::start("nginx", &mut start, &root.join("log"))?;
        let host = |port: u16| format!("127.0.0.1:{port}");
        for port in [sendfile, buffers] {
            let listens = async || tokio::net::TcpStream::connect(host(port)).await.ok();
            running.until(Duration::from_secs(10), listens).await?;
        }
        Ok(Some(Self {
            _running: running,
            sendfile: host(sendfile),
            buffers: host(buffers),
            version,
            takes_puts,
            root: root.join("www"),
            _directory: directory,
        }))
    }
}

/// Its version, and whether it was built with what takes PUTs.
fn about(program: &Path) -> anyhow::Result<(String, bool)> {
    let said = std::process::Command::new(program)
        .arg("-V")
        .output()
        .context("nginx -V")?;
    let said = String::from_utf8_lossy(&said.stderr);
    let version = said.lines().next().unwrap_or_default();
    let version = version.trim().trim_start_matches("nginx version: ").to_owned();
    Ok((version, said.contains("with-http_dav_module")))
}

/// Logs, limits on keep-alive and other costs that are not serving are off.
fn configuration(root: &Path, sendfile: u16, buffers: u16, takes_puts: bool) -> String {
    let root = root.display();
    // Workers of a root's nginx would otherwise be `nobody`, who may not enter a private directory.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let puts = if takes_puts {
        "dav_methods PUT; client_max_body_size 16m;"
    } else {
        ""
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {root}/{name};\n"))
        .collect();
    format!(
        "{user}\ndaemon off;\nworker_processes auto;\npid {root}/pid;\nerror_log {root}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  tcp_nodelay on;\n\
         \x20 default_type application/octet-stream;\n{temporary}\
         \x20 server {{ listen 127.0.0.1:{sendfile}; root {root}/www; sendfile on; {puts} }}\n\
         \x20 server {{ listen 127.0.0.1:{buffers}; root {root}/www; sendfile off; output_buffers 2 1m; {puts} }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Connection;

    #[tokio::test]
    async fn both_servers_give_the_chunks() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Payload::make();
        let Some(nginx) = Nginx::start(directory.path(), &payload, 2).await.unwrap() else {
            eprintln!("SKIPPED: nginx is not installed");
            return;
        };
        for host in [&nginx.sendfile, &nginx.buffers] {
            let (answer, body) = Connection::open(host)
                .await
                .unwrap()
                .get_body("/chunk/1")
                .await
                .unwrap();
            assert_eq!(answer.status, 200);
            assert!(body == payload.chunk(1).bytes);
        }
        if nginx.takes_puts {
            let mut connection = Connection::open(&nginx.buffers).await.unwrap();
            let answer = connection.put("/chunk/new", &payload.chunk(0).bytes).await.unwrap();
            assert_eq!(answer.status, 201);
            assert!(std::fs::read(nginx.root.join("chunk/new")).unwrap() == payload.chunk(0).bytes);
        }
        drop(nginx);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
