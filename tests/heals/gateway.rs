//! A gateway that has read nothing yet: the one of the cluster keeps what it read last for its next reader, which says
//! nothing of what nodes can give now.

use std::net::UdpSocket;

use crate::harness::{
    Answer, Cluster, get, http,
    service::{Service, free_port},
    try_http, wait_for,
};

/// Ends when it is dropped.
pub struct Gateway {
    url: String,
    _service: Service,
    _sign: UdpSocket,
}

impl Gateway {
    pub fn start(cluster: &Cluster) -> Self {
        let secret = std::fs::read_to_string(cluster.data().join("cluster-secret")).unwrap();
        let (port, sign) = free_port();
        let env = [
            ("DEMO_PORT", port.as_str()),
            ("METADATA_SERVICE_URL", &cluster.url("metadata")),
            ("UPLOADER_SERVICE_URL", &cluster.url("uploader")),
        ];
        let service = Service::start("web", &cluster.scratch("gateway.log"), secret.trim(), &env);
        let url = format!("http://127.0.0.1:{port}");
        wait_for("a gateway", || {
            let ready = try_http("GET", &format!("{url}/ready"), |request| request);
            ready.ok().filter(|answer| answer.status == 200)
        });
        Self {
            url,
            _service: service,
            _sign: sign,
        }
    }

    /// A whole film, as one file.
    pub fn film(&self, video: &str) -> Answer {
        get(&self.film_url(video))
    }

    /// The same; none where it breaks off.
    pub fn try_film(&self, video: &str) -> Option<Answer> {
        try_http("GET", &self.film_url(video), |request| request).ok()
    }

    /// A kilobyte of a film from there on.
    pub fn part_of_film(&self, video: &str, from: u64) -> Answer {
        http("GET", &self.film_url(video), |request| {
            request.header("Range", format!("bytes={from}-{}", from + 999))
        })
    }

    fn film_url(&self, video: &str) -> String {
        format!("{}/video/{video}/download", self.url)
    }
}
